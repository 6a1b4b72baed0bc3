"""Diagnosis of the first steps of training: how far gradients reach back, dead units, sizes of updates, a gradient
check, and a range test of the learning rate.

Models need no code for this: intercepted method calls record their inputs and the outputs of their layers.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from seqlab.config import Experiment
from seqlab.data.batches import check_fields, make_batch
from seqlab.data.plans import BatchPlan
from seqlab.distributed.devices import fill_rows
from seqlab.evaluation.diagnosis.activations import activations
from seqlab.evaluation.diagnosis.findings import findings
from seqlab.evaluation.diagnosis.gradient_check import gradient_check, in_float64
from seqlab.evaluation.diagnosis.gradients import AFTER, BEFORE, gradients_over_time, leaf_names
from seqlab.evaluation.diagnosis.plots import draw_activations, draw_gradients, draw_rates, draw_updates
from seqlab.evaluation.diagnosis.rates import range_test, suggest
from seqlab.evaluation.diagnosis.updates import run_steps
from seqlab.evaluation.plain_values import to_plain
from seqlab.runs.parametrized import loss_of, trained_pattern
from seqlab.runs.trainable import is_floating, split
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.system.files import atomic_folder, check_new
from seqlab.training.checks import check_experiment
from seqlab.training.depth import depth_factors
from seqlab.training.feed import stream_batches
from seqlab.training.prepare import plan_batches, prepare_experiment
from seqlab.training.schedule import make_schedule
from seqlab.training.state import initial_state, optimizer_of
from seqlab.types import Batch


def diagnose(
    experiment: Experiment, out: Path, data_dir: Path, first: int = 200, say: Callable[[str], None] = print
) -> None:
    """Runs the `first` steps of training and a range test of the learning rate, writes plots and figures into the new
    folder `out`, and reports the findings with `say`. Raises `SeqlabError` where `train` does.
    """
    check_new(out)
    check_minimum("--first", first, 1)
    check_experiment(experiment)
    if experiment.references or experiment.task.online:
        raise SeqlabError("seqlab diagnose does not support references or online tasks")
    experiment, _, codecs, corpus = prepare_experiment(experiment, data_dir, out, say=say)
    plan = plan_batches(experiment, corpus, say)

    def collate(batch_plan: BatchPlan, epoch: int = 0) -> Batch:
        return make_batch(experiment.task, corpus, codecs, batch_plan, (experiment.seed, epoch))

    loss = loss_of(experiment)
    longest = max(
        itertools.islice(plan.batches(experiment.seed, 0), 20), key=lambda batch_plan: sum(batch_plan.shape)
    )
    batch = fill_rows(collate(longest), len(jax.devices()))
    check_fields(batch, experiment.task, "diagnosed")
    places = experiment.task.places(batch)
    state = initial_state(experiment, batch)
    if not all(map(is_floating, jax.tree.leaves(state.params))):
        raise SeqlabError("seqlab diagnose does not support parameters that are integers: diagnose the base run")
    steps = min(first, experiment.steps)
    say(f"{sum(x.size for x in jax.tree.leaves(state.params)):,} parameters, {steps} steps")

    def batches() -> Iterator[Batch]:
        return (step_batch for _, _, step_batch in stream_batches(plan, experiment.seed, collate, 0, 0))

    pattern = trained_pattern(experiment)
    trained = run_steps(loss, optimizer_of(experiment), experiment.seed, state, batches(), steps, trainable=pattern)
    rates, losses = range_test(
        loss,
        dataclasses.replace(experiment.optimizer, trainable=pattern),
        experiment.seed,
        state,
        batches(),
        depth_factors(experiment),
    )
    peak = float(make_schedule(experiment.schedule, experiment.steps)(np.arange(experiment.steps)).max())
    params_by_time = {BEFORE: state.params, AFTER: trained.params}
    results = {
        "model": type(experiment.model).__name__,
        "losses": trained.losses,
        "gradients over time": {
            when: gradients_over_time(loss, params, batch, places) for when, params in params_by_time.items()
        },
        "activations": {when: activations(loss, params, batch) for when, params in params_by_time.items()},
        "updates": dict(zip(leaf_names(split(state.params, pattern)[0]), trained.ratios.T, strict=True)),
        "gradient check": gradient_check(
            in_float64(experiment), params_by_time[AFTER if np.isfinite(trained.losses).all() else BEFORE], batch
        ),
        "learning rate": {**suggest(rates, losses), "peak of the config": peak},
    }
    results["findings"] = findings(results)
    with atomic_folder(out) as folder:
        draw_gradients(results["gradients over time"], folder / "gradients_over_time.png")
        draw_activations(results["activations"], folder / "activations.png")
        draw_updates(results["updates"], folder / "updates.png")
        draw_rates(results["learning rate"], folder / "learning_rate.png")
        (folder / "diagnosis.json").write_text(json.dumps(to_plain(results), indent=1, allow_nan=False) + "\n")
    for line in results["findings"]:
        say(line)
    say(str(out))
