"""Checks that the proofs share: a run resumes bitwise, and computes the same results on one and on eight devices."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from seqlab.config import Batching, Experiment, Optimizer, Parallel, Schedule, Text, Validation
from seqlab.distributed.devices import fill_rows, make_runner
from seqlab.laws.equality import require_close
from seqlab.laws.models import zero_gradients
from seqlab.runs import checkpoint, manifest
from seqlab.runs.parameters import axes_of
from seqlab.runs.references import load_references, place_references
from seqlab.system.errors import Stopped
from seqlab.training.prepare import plan_batches, prepare_experiment
from seqlab.training.state import initial_state, training_step
from seqlab.training.train import train


def quiet(line):
    """Prints nothing."""


def small(model, task, data, **changes):
    """Returns a small experiment that validates every four steps."""
    settings = {
        "steps": 8,
        "log_every": 1,
        "hash_every": 1,
        "text": Text("char", 300),
        "batching": Batching(tokens=600, buckets=2, max_length=80),
        "schedule": Schedule(name="constant", peak=1e-2, warmup=0),
        "validation": Validation(every=4, examples=8, beam=1 if task.metrics else 0),
    }
    return Experiment(model, task, data, **{**settings, **changes})


def losses_of(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def leaves_of(run, step=None):
    tree = checkpoint.restore(run, manifest.choose_step(run, "last") if step is None else step)
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(tree["params"], sep="/").items()}


def check_run(experiment, run: Path, data_dir: Path, **options):
    """Checks that the loss of a run decreases, that the run resumes bitwise, and that one and eight devices agree."""
    losses = losses_of(run)
    assert losses[-1] < losses[0]
    check_resume(experiment, run, data_dir, **options)
    check_devices(experiment, run, data_dir)


def check_resume(experiment, whole: Path, data_dir: Path, **options):
    """Checks that a run that is stopped after its first validation and resumed has the hashes of an unstopped run."""
    run, stops = whole.with_name(f"{whole.name}-resumed"), []

    def stop(line):
        if line.startswith("step 4:") and not stops:
            stops.append(line)
            raise Stopped("here")

    for _ in range(2):
        try:
            train(experiment, run, data_dir, say=stop, **options)
        except Stopped:
            continue
    assert stops
    assert (run / "hashes.jsonl").read_text() == (whole / "hashes.jsonl").read_text()


def check_devices(experiment, run: Path, data_dir: Path):
    """Checks that a step of SGD without dropout gives the parameters of one device, with jit and, if rows are
    independent, with pmap.
    """
    experiment, _, codecs, corpus = prepared = prepare_experiment(experiment, data_dir, run, say=quiet)
    experiment = dataclasses.replace(experiment, optimizer=Optimizer("sgd", clip=0.0))
    references = load_references(experiment, run, codecs)
    plan = plan_batches(experiment, corpus, quiet)
    batch = fill_rows(prepared.collate(plan.batches(0, 0)[0], 0), 8)
    state = initial_state(experiment, batch, references)
    alone, _ = jax.jit(training_step(experiment))(jax.tree.map(jnp.copy, state), batch, references)
    alone_by_row = not (experiment.task.whole_batch or experiment.task.online)  # pmap samples different rollouts
    for parallel in (Parallel(), Parallel(fsdp=2), *([Parallel("pmap")] if alone_by_row else [])):
        runner = make_runner(parallel, 1, axes_of(experiment.model))
        step = runner.compile(training_step(experiment, runner.axis))
        placed = place_references(references, runner.place)
        before = jax.tree.map(np.array, runner.fetch(jax.tree.map(lambda x: x, placed)))
        after, _ = step(runner.place(jax.tree.map(np.array, state)), runner.feed(batch), placed)
        ours, zeros = flatten_dict(runner.fetch(after).params), zero_gradients(experiment.model)
        for path, expected in flatten_dict(alone.params).items():
            name = jax.tree_util.keystr(tuple(map(jax.tree_util.DictKey, path)))
            if not any(zero in name for zero in zeros):  # otherwise, it is only rounding errors
                require_close(np.asarray(ours[path]), np.asarray(expected), f"{name} with {parallel}")
        unchanged = jax.tree.map(np.array_equal, before, jax.tree.map(np.array, runner.fetch(placed)))
        assert all(jax.tree.leaves(unchanged))
