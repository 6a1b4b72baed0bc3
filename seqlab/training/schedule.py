"""Learning rate schedules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqlab.config import Schedule


def make_schedule(schedule: Schedule, steps: int) -> Callable[[Any], jax.Array]:
    """Returns the learning rate as a function of the update, from 0. The first and the last rate are above zero."""
    warmup = max(schedule.warmup, 1)
    decay_steps = max(steps - warmup, 0) + 1

    def decay(t: jax.Array) -> jax.Array:
        share = jnp.clip((t - warmup) / decay_steps, 0.0, 1.0)
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
                return schedule.decay ** ((t - 1) // schedule.every)
            case _:
                raise AssertionError(schedule.name)  # config.SCHEDULES lists no other

    def rate(t: Any) -> jax.Array:
        t = jnp.asarray(t, jnp.float32) + 1.0
        return schedule.peak * jnp.minimum(t / warmup, 1.0) * decay(t)

    return rate
