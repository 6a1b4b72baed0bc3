"""Checks before training: what needs two parts of an experiment, its data, or this machine."""

import jax

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.plans import Plan
from seqlab.data.records import PreparedData
from seqlab.decoding.settings import validation_search
from seqlab.distributed.devices import check_devices
from seqlab.runs.parameters import init_params
from seqlab.system.errors import SeqlabError
from seqlab.types import Counted, Model


def check_longest(model: Model, plan: Plan) -> None:
    """Raises `SeqlabError` where a batch has more positions than the model."""
    if model.longest is not None and plan.longest > model.longest:
        raise SeqlabError(
            f"there are batches of {plan.longest} positions, and the model has {model.longest}: raise "
            f"model.max_length, or set batching.max_length to {model.longest}"
        )


def check_experiment(experiment: Experiment) -> None:
    """Raises `SeqlabError`, before any work is done, for parts that do not fit together, or not this machine. The
    fields of a part are checked where they are defined.
    """
    catalogue.check_parts(experiment)
    check_devices(experiment.parallel)
    names = ("loss", *experiment.task.metrics)
    if experiment.validation.metric not in names:
        raise SeqlabError(
            f"validation.metric {experiment.validation.metric!r} is none of this task's: {', '.join(names)}; "
            "the field metrics of a task names them"
        )
    model, task = type(experiment.model).__name__, experiment.task
    if task.metrics and not task.predicts:
        raise SeqlabError(f"{type(task).__name__} has metrics, and predicts nothing: define requests or predict")
    if task.updates < 1:
        raise SeqlabError(f"task.updates must be at least 1, not {task.updates}")
    if isinstance(experiment.model, Counted) and (experiment.parametrization or experiment.initialize):
        raise SeqlabError(f"{model} is counted: leave out parametrization and initialize")
    if experiment.task.whole_batch and (experiment.accumulate > 1 or experiment.parallel.name == "pmap"):
        raise SeqlabError(
            f"the loss of {type(experiment.task).__name__} depends on the whole batch: set accumulate to 1 and "
            "parallel.name to jit"
        )
    validation_search(experiment)
    model = catalogue.with_expected_sizes(experiment).model
    try:
        jax.eval_shape(lambda: init_params(model, experiment.seed))
    except SeqlabError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise SeqlabError(f"this model cannot be built: {error}") from None


def check_columns(experiment: Experiment, data: PreparedData) -> None:
    """Raises `SeqlabError` where the data lacks a column of the task."""
    smallest = min(data.counts, key=lambda split: data.counts[split])  # opens fastest
    first = next(data.read(smallest, 0, 1))
    for name in experiment.task.columns:
        if name not in first:
            task = type(experiment.task).__name__
            raise SeqlabError(f"{task} needs the column {name!r}, and the data has {', '.join(first)}")


def check_kernel(model: Model, plan: Plan) -> None:
    """Raises `SeqlabError` where a part of the model's kernel would never see a position."""
    if model.widest_kernel > plan.longest:
        raise SeqlabError(
            f"a kernel of {model.widest_kernel} positions is wider than any batch: choose a model.kernel up to "
            f"{plan.longest}"
        )
