"""Laws of training: a step on several devices, and a run that is interrupted and resumed."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqlab import catalogue
from seqlab.config import Batching, Experiment, Parallel, Schedule, Text, Validation
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.distributed.devices import fill_rows, make_runner
from seqlab.laws.equality import LawBroken, require, require_close, require_equal
from seqlab.laws.models import first_state
from seqlab.laws.subject import make_subject
from seqlab.readers.words import Words
from seqlab.runs.checkpoint import restore
from seqlab.runs.manifest import checkpoint_steps, read_manifest
from seqlab.runs.parameters import axes_of
from seqlab.training.averages import moving_average
from seqlab.training.step import make_step
from seqlab.training.train import train
from seqlab.types import Batch

SPLITS = (  # ways to split a step: by jit or pmap, with sharded parameters, and in parts
    (Parallel(), 1),
    (Parallel(fsdp=2, tensor=2), 1),
    (Parallel(fsdp=4), 3),
    (Parallel(), 2),
    (Parallel("pmap"), 1),
    (Parallel("pmap"), 3),
)


def devices_agree() -> None:
    """SGD on one device and on all devices gives the same parameters, however the step is split, for a number of rows
    that is not divisible by the number of devices.

    With jit, dropout is on, since its mask is drawn for the whole batch; with pmap and in parts, it is off.
    """
    # The model is large enough to be split. Swish, because rounding can flip the gradient of a ReLU at zero.
    model = catalogue.module("models", "transformer").TINY
    model = model.clone(encoder_layers=1, decoder_layers=1, dim=32, heads=4, hidden=128, activation="swish")
    subject = make_subject(model)
    batch = Batch(subject.inputs, subject.prefix, subject.targets, subject.weights)
    batch = jax.tree.map(np.asarray, batch)
    optimizer = optax.sgd(0.1)

    def train_leaves(run: Callable[..., Any], place: Any, feed: Any, fetch: Any) -> Any:
        first = dataclasses.replace(first_state(subject.params, optimizer, ("nll",)), average=subject.params)
        state = place(jax.tree.map(jnp.array, first))
        for _ in range(10):
            state, _ = run(state, feed(batch))
        whole = fetch(state)
        return jax.tree.leaves(jax.tree.map(np.asarray, (whole.params, whole.sums, whole.average)))

    task, average = catalogue.part_class("tasks", "translation")(), moving_average(0.7)
    alone = {}
    for parallel, parts in SPLITS:
        dropout = 0.3 if (parallel.name, parts) == ("jit", 1) else 0.0
        loss = functools.partial(task.loss, model.clone(dropout=dropout))
        if dropout not in alone:
            step = jax.jit(make_step(loss, optimizer, 0, average=average))
            alone[dropout] = train_leaves(step, lambda x: x, lambda x: x, lambda x: x)
        runner = make_runner(parallel, parts, axes_of(model))
        step = runner.compile(make_step(loss, optimizer, 0, runner.axis, accumulate=parts, average=average))
        leaves = train_leaves(step, runner.place, lambda x, r=runner: r.feed(fill_rows(x, r.parts)), runner.fetch)
        for i, (leaf, expected) in enumerate(zip(leaves, alone[dropout], strict=True)):
            require_close(leaf, expected, f"{parallel} in {parts} part(s) on {len(jax.devices())} devices, leaf {i}")


def tiny_experiment() -> Experiment:
    """Returns an experiment of ten steps on a few phrases, with a checkpoint every two steps."""
    return Experiment(
        model=catalogue.module("models", "transformer").TINY.clone(
            reader=Words(), vocabulary=0, encoder_layers=1, decoder_layers=1, tie="all", dropout=0.2
        ),
        task=catalogue.part_class("tasks", "translation")(),
        data=CldrPhrases(train=60, validation=6, test=6),
        steps=10,
        log_every=3,
        text=Text("char", 400),
        batching=Batching(tokens=1200, buckets=1, max_length=200),
        schedule=Schedule(peak=1e-2, warmup=2),
        validation=Validation(every=2, examples=6, beam=0),
    )


class Killed(Exception):
    """Raised in place of killing the process."""


def resuming_changes_nothing(folder: Path) -> None:
    """A run that is interrupted during validation and resumed ends bitwise equal to an uninterrupted run."""
    experiment = dataclasses.replace(tiny_experiment(), steps=6, log_every=2)

    def until(line: str) -> Callable[[str], None]:
        def say(text: str) -> None:
            if text.startswith(line):
                raise Killed

        return say

    def quiet(text: str) -> None: ...

    train(experiment, folder / "whole", folder / "data", say=quiet)
    for line in ("step 2:", "step 4:"):  # printed before the result of that validation is stored
        try:
            train(experiment, folder / "cut", folder / "data", say=until(line))
        except Killed:
            continue
        raise LawBroken("the run was not interrupted")
    require(checkpoint_steps(folder / "cut")[-1] == 4, "the last checkpoint before the interruption is not of step 4")
    train(experiment, folder / "cut", folder / "data", say=quiet)
    trees = [restore(folder / name, 6) for name in ("whole", "cut")]
    for (path, whole), cut in zip(
        jax.tree_util.tree_flatten_with_path(trees[0])[0], jax.tree.leaves(trees[1]), strict=True
    ):
        require_equal(whole, cut, f"after resuming, {jax.tree_util.keystr(path)}")
    ends = [read_manifest(folder / name, 6)["progress"] for name in ("whole", "cut")]
    require(ends[0] == ends[1], f"cursor and best score differ after resuming: {ends}")
    logs = [(folder / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    require(logs[0] == logs[1], "the logs differ after resuming")
