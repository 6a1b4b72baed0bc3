"""TODO training.schedule."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqlab.config import Schedule
from seqlab.system.errors import SeqlabError


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
