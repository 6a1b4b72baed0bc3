"""The initial state, the optimizer and the training step of an experiment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from seqlab.config import Experiment
from seqlab.runs.parametrized import init_experiment_parameters, loss_of, rollout_of, trained_pattern
from seqlab.runs.trainable import split
from seqlab.system.errors import SeqlabError
from seqlab.training.averages import average_of
from seqlab.training.depth import depth_factors
from seqlab.training.online import make_online_step
from seqlab.training.optimizer import optimizer_at
from seqlab.training.schedule import make_schedule
from seqlab.training.step import STEP_SUMS, make_step, zeros_like
from seqlab.training.trainable import check_patterns
from seqlab.types import Context, Loss, Reference, TrainState


def training_step(experiment: Experiment, axis: str | None = None) -> Callable[..., Any]:
    """Returns the training step of an experiment. Gradients are summed over the devices of `axis`, if it is given."""
    task = experiment.task
    step = make_step(
        loss_of(experiment),
        optimizer_of(experiment),
        experiment.seed,
        axis,
        accumulate=experiment.accumulate,
        average=average_of(experiment.optimizer, updates_of(experiment)),
        skip=experiment.nonfinite == "skip",
        trainable=trained_pattern(experiment),
    )
    return (
        make_online_step(step, rollout_of(experiment), experiment.seed, task.updates, axis) if task.online else step
    )


def initial_state(experiment: Experiment, batch: Any, references: dict[str, Reference] | None = None) -> TrainState:
    """Returns the state at step 0, for batches with the shapes of `batch`.

    Raises `SeqlabError` if the model cannot be built, if a pattern of the optimizer matches no parameter, or if no
    parameter is trained.
    """
    params, settings = init_experiment_parameters(experiment), experiment.optimizer
    check_patterns(params, "optimizer.trainable", [settings.trainable])
    check_patterns(params, "optimizer.rates", [pattern for pattern, _ in settings.rates])
    check_patterns(params, "optimizer.unfreeze", [pattern for pattern, _ in settings.unfreeze])
    trained, _ = split(params, trained_pattern(experiment))
    if not jax.tree.leaves(trained):
        raise SeqlabError(
            "optimizer.trainable matches only arrays of integers, which cannot be trained: match other parameters"
        )
    context = Context(jax.random.key(0), references=references or {})
    experience = jax.eval_shape(rollout_of(experiment), params, batch, context)
    value = jax.eval_shape(loss_of(experiment), params, experience, context)
    check_loss(value, type(experiment.task).__name__)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        optimizer=optimizer_of(experiment).init(trained),
        carry=zeros_like(value.carry),
        sums={name: jnp.float32(0) for name in (*STEP_SUMS, *value.sums)},
        average=jax.tree.map(jnp.copy, params) if average_of(settings) else None,
    )


def check_loss(value: Any, task: str) -> None:
    """Raises `SeqlabError` if the loss of a task is not a `Loss` of scalars."""
    if not isinstance(value, Loss) or not isinstance(value.sums, dict):
        raise SeqlabError(f"{task}.loss must return a Loss(sum, weight, sums), not {type(value).__name__}")
    reserved = min(value.sums.keys() & STEP_SUMS, default=None)
    if reserved is not None:
        raise SeqlabError(f"{task}.loss: the name {reserved!r} in sums is reserved: choose another name")
    scalars = {"sum": value.sum, "weight": value.weight, **value.sums}
    wrong = next((name for name, scalar in scalars.items() if jnp.shape(scalar)), None)
    if wrong is not None:
        raise SeqlabError(
            f"{task}.loss: {wrong} must be a scalar, a sum over the batch, but has the shape "
            f"{jnp.shape(scalars[wrong])}"
        )


def optimizer_of(experiment: Experiment) -> optax.GradientTransformation:
    """Returns the optimizer of an experiment with its learning-rate schedule, which counts steps; a step of an online
    task is a rollout.
    """
    rate, updates = make_schedule(experiment.schedule, experiment.steps), updates_of(experiment)
    factors = depth_factors(experiment)
    return optimizer_at(experiment.optimizer, lambda count: rate(count // updates), factors, updates)


def updates_of(experiment: Experiment) -> int:
    """Returns the number of updates in a step."""
    return experiment.task.updates if experiment.task.online else 1
