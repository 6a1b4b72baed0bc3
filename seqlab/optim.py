"""Optimizer and schedule to one optax transformation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from seqlab.config import Optimizer, Schedule
from seqlab.errors import SeqlabError


def make_schedule(schedule: Schedule, steps: int) -> Callable[[Any], jax.Array]:
    """The learning rate of update `t`, counted from 0; the first one is already above zero."""
    warmup = max(schedule.warmup, 1)
    after = max(steps - warmup, 1)

    def decay(t: jax.Array) -> jax.Array:
        share = jnp.clip((t - warmup) / after, 0.0, 1.0)
        match schedule.name:
            case "constant":
                return jnp.ones_like(share)
            case "inverse_sqrt":
                return (warmup / jnp.maximum(t, warmup)) ** 0.5
            case "noam":
                return (schedule.dim * jnp.maximum(t, warmup)) ** -0.5
            case "cosine":
                return 0.5 * (1.0 + jnp.cos(jnp.pi * share))
            case "linear":
                return 1.0 - share
            case "step":
                return schedule.decay ** (t // schedule.every)
        names = "constant, inverse_sqrt, noam, cosine, linear, step"
        raise SeqlabError(f"unknown schedule {schedule.name!r}: one of {names}")

    def rate(t: Any) -> jax.Array:
        t = jnp.asarray(t, jnp.float32) + 1.0
        return schedule.peak * jnp.minimum(t / warmup, 1.0) * decay(t)

    return rate


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
