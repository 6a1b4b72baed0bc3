"""TODO training.checks."""

import dataclasses
import math
from typing import Any, get_type_hints

import jax

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.padding import blank_batch
from seqlab.data.plans import Plan
from seqlab.data.records import Prepared
from seqlab.decoding.settings import check_search
from seqlab.distributed.devices import check_parallel
from seqlab.runs.parameters import init_params
from seqlab.system.errors import SeqlabError, at_least
from seqlab.training.schedule import make_schedule
from seqlab.training.state import optimizer_of


def check_longest(model: Any, plan: Plan) -> None:
    """Raises where a batch has more positions than the model."""
    most = getattr(model, "longest", None)
    if most is not None and plan.longest > most:
        raise SeqlabError(
            f"there are batches of {plan.longest} positions, and the model has {most}: raise model.max_length, or "
            f"set batching.max_length to {most}"
        )


def check(experiment: Experiment) -> None:
    """Refuses, before any work is done, what could only fail later."""
    e = experiment
    catalogue.check_parts(e)
    check_types(e)
    catalogue.check_numbers(e)
    optimizer_of(e).init({})
    make_schedule(e.schedule, e.steps)(0)
    check_parallel(e.parallel)
    if e.nonfinite not in ("stop", "skip", "rollback"):
        raise SeqlabError(f"nonfinite must be stop, skip or rollback, not {e.nonfinite!r}")
    check_search(e.search)
    known = ("loss", *e.task.metrics)
    metric = e.validation.metric
    if metric not in known:
        raise SeqlabError(f"validation.metric {metric!r} is none of this task's: {', '.join(known)}")
    if metric != "loss" and not e.validation.beam:
        raise SeqlabError(f"validation.metric {metric!r} needs translations: set validation.beam to 1 or more")
    for name, value, least in (
        ("accumulate", e.accumulate, 1),
        ("log_every", e.log_every, 1),
        ("hash_every", e.hash_every, 0),
        ("text.sample", e.text.sample, 1),
        ("batching.tokens", e.batching.tokens, 1),
        ("batching.buckets", e.batching.buckets, 1),
        ("batching.max_length", e.batching.max_length, 1),
        ("batching.max_ratio", e.batching.max_ratio, 1),
        ("optimizer.clip", e.optimizer.clip, 0),
        ("schedule.every", e.schedule.every, 1),
        ("schedule.warmup", e.schedule.warmup, 0),
        ("validation.every", e.validation.every, 1),
        ("validation.examples", e.validation.examples, 1),
        ("validation.beam", e.validation.beam, 0),
        ("checkpoints.last", e.checkpoints.last, 1),
    ):
        at_least(name, value, least)
    o = e.optimizer
    for name, value, holds, wanted in (
        ("schedule.peak", e.schedule.peak, 0 <= e.schedule.peak < math.inf, "a finite number of at least 0"),
        ("optimizer.beta1", o.beta1, 0 <= o.beta1 < 1, "in [0, 1)"),
        ("optimizer.beta2", o.beta2, 0 <= o.beta2 < 1, "in [0, 1)"),
        ("optimizer.epsilon", o.epsilon, 0 <= o.epsilon < math.inf, "a finite number of at least 0"),
        ("optimizer.weight_decay", o.weight_decay, 0 <= o.weight_decay < math.inf, "a finite number of at least 0"),
        ("optimizer.average", o.average, 0 <= o.average < 1, "in [0, 1)"),
        ("optimizer.clip", o.clip, math.isfinite(o.clip), "a finite number"),
    ):
        if not holds:
            raise SeqlabError(f"{name} is {wanted}, not {value}")
    smoothing = getattr(e.task, "label_smoothing", 0.0)
    if not 0 <= smoothing < 1:
        raise SeqlabError(f"task.label_smoothing lies in [0, 1), not {smoothing}")
    model = catalogue.sized(e.model, e.text.size)
    try:
        jax.eval_shape(lambda: init_params(model, e.seed, blank_batch(e.task)))
    except SeqlabError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise SeqlabError(f"this model cannot be built: {error}") from None


def check_types(value: Any, prefix: str = "") -> None:
    """Refuses a field of plain type, such as `steps: int`, that holds another, such as "3"."""
    hints = get_type_hints(type(value))
    for field in dataclasses.fields(value):
        found, wanted = getattr(value, field.name), hints.get(field.name)
        if dataclasses.is_dataclass(found) and field.name != "parent":
            check_types(found, f"{prefix}{field.name}.")
        elif wanted in (int, float, str, bool):
            fits = isinstance(found, (int, float) if wanted is float else wanted)
            if not fits or (isinstance(found, bool) and wanted is not bool):
                raise SeqlabError(f"{prefix}{field.name} is of type {wanted.__name__}, and {found!r} is not")


def check_columns(experiment: Experiment, data: Prepared) -> None:
    """Raises where the data lacks a column that the task asks for."""
    smallest = min(data.counts, key=lambda split: data.counts[split])  # all have the same, and it opens fastest
    first = next(data.read(smallest, 0, 1))
    for name in experiment.task.columns:
        if name not in first:
            task = type(experiment.task).__name__
            raise SeqlabError(f"{task} needs the column {name!r}, and the data has {', '.join(first)}")


def check_kernel(model: Any, plan: Plan) -> None:
    """Raises where a part of the model's kernel would never see a position. Stacks of other layers have none."""
    kernel = getattr(model, "kernel", 1) if getattr(model, "layer", "tcn") == "tcn" else 1
    if kernel > plan.longest:
        raise SeqlabError(
            f"a kernel of {kernel} positions is wider than any batch: choose a model.kernel up to {plan.longest}"
        )
