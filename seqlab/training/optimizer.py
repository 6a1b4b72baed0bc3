"""Optimizer and schedule to one optax transformation."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from seqlab.config import Optimizer, Schedule
from seqlab.system.errors import SeqlabError
from seqlab.training.schedule import make_schedule


def make_optimizer(optimizer: Optimizer, schedule: Schedule, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimizer at the scheduled rate."""
    return optimizer_at(optimizer, make_schedule(schedule, steps))


def optimizer_at(o: Optimizer, rate: Callable[[Any], jax.Array]) -> optax.GradientTransformation:
    """`make_optimizer` at the rate of any function of the updates so far."""
    match o.name:
        case "adam":
            update = optax.adam(rate, o.beta1, o.beta2, o.epsilon)
        case "adamw":
            update = optax.adamw(
                rate,
                o.beta1,
                o.beta2,
                o.epsilon,
                weight_decay=o.weight_decay,
                mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
            )
        case "sgd":
            update = optax.sgd(rate)
        case "momentum":
            update = optax.sgd(rate, momentum=o.beta1)
        case "nesterov":
            update = optax.sgd(rate, momentum=o.beta1, nesterov=True)
        case "rmsprop":
            update = optax.rmsprop(rate, decay=o.beta2, eps=o.epsilon)
        case "adagrad":
            update = optax.adagrad(rate, eps=o.epsilon)
        case _:
            names = "adam, adamw, sgd, momentum, nesterov, rmsprop, adagrad"
            raise SeqlabError(f"unknown optimizer {o.name!r}: one of {names}")
    return optax.chain(optax.clip_by_global_norm(o.clip), update) if o.clip else update
