"""How a model learns, seen from real steps: how far gradients reach back, which units are dead, how large updates
are, whether the gradient is right, and which learning rates there are to choose from.

A model knows nothing of it: what enters it and what its layers give is looked at from outside, where methods are
called.
"""

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqlab.config import Experiment
from seqlab.data.task import make_batch
from seqlab.distributed.devices import fill_rows
from seqlab.evaluation.diagnosis.activations import activations
from seqlab.evaluation.diagnosis.findings import findings
from seqlab.evaluation.diagnosis.gradient_check import gradient_check, in_float64
from seqlab.evaluation.diagnosis.gradients import AFTER, BEFORE, Reach, gradients_over_time, leaf_names
from seqlab.evaluation.diagnosis.plots import draw_activations, draw_gradients, draw_rates, draw_updates
from seqlab.evaluation.diagnosis.rates import range_test, suggest
from seqlab.evaluation.diagnosis.updates import run_steps
from seqlab.system.errors import at_least
from seqlab.system.files import check_new, folder_made_whole
from seqlab.training.checks import check
from seqlab.training.feed import stream_of
from seqlab.training.prepare import plan_batches, read_data
from seqlab.training.schedule import make_schedule
from seqlab.training.state import initial_state, optimizer_of
from seqlab.types import Batch


def diagnose(
    experiment: Experiment, out: Path, data_dir: Path, first: int = 200, say: Callable[[str], None] = print
) -> None:
    """Runs the `first` steps of training and a range test of the learning rate; writes what they show, plots and
    figures, into the new folder `out`, and says what stands out. Raises `SeqlabError` where `train` does.
    """
    check_new(out)
    at_least("--first", first, 1)
    check(experiment)
    experiment, _, tokenizers, corpus = read_data(experiment, data_dir, out, say=say)
    plan = plan_batches(experiment, corpus, say)
    collate = functools.partial(make_batch, experiment.task, corpus, tokenizers)
    loss = functools.partial(experiment.task.loss, experiment.model)
    longest = max(itertools.islice(plan.batches(experiment.seed, 0), 20), key=lambda rows: sum(rows.shape))
    batch = fill_rows(collate(longest), len(jax.devices()))
    state = initial_state(experiment, batch)
    steps = min(first, experiment.steps)
    say(f"{sum(x.size for x in jax.tree.leaves(state.params)):,} parameters, {steps} steps")

    def batches() -> Iterator[Batch]:
        return (one for _, _, one in stream_of(plan, experiment.seed, collate, 0, 0))

    trained = run_steps(loss, optimizer_of(experiment), experiment.seed, state, batches(), steps)
    rates, losses = range_test(loss, experiment.optimizer, experiment.seed, state, batches())
    peak = float(make_schedule(experiment.schedule, experiment.steps)(np.arange(experiment.steps)).max())
    ways = {BEFORE: state.params, AFTER: trained.params}
    found = {
        "model": type(experiment.model).__name__,
        "losses": trained.losses,
        "gradients over time": {when: gradients_over_time(loss, params, batch) for when, params in ways.items()},
        "activations": {when: activations(loss, params, batch) for when, params in ways.items()},
        "updates": dict(zip(leaf_names(state.params), trained.ratios.T, strict=True)),
        "gradient check": gradient_check(
            in_float64(experiment), ways[AFTER if np.isfinite(trained.losses).all() else BEFORE], batch
        ),
        "learning rate": {**suggest(rates, losses), "peak of the config": peak},
    }
    found["findings"] = findings(found)
    with folder_made_whole(out) as folder:
        draw_gradients(found["gradients over time"], folder / "gradients_over_time.png")
        draw_activations(found["activations"], folder / "activations.png")
        draw_updates(found["updates"], folder / "updates.png")
        draw_rates(found["learning rate"], folder / "learning_rate.png")
        (folder / "diagnosis.json").write_text(json.dumps(plain(found), indent=1, allow_nan=False) + "\n")
    for line in found["findings"]:
        say(line)
    say(str(out))


def plain(value: Any) -> Any:
    """What JSON can hold; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, Reach):
        return plain(value._asdict())
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
