"""Training on samples of the policy: a step is a rollout of the current parameters followed by updates on it.

The rollout and its updates are one compiled step. Checkpoints, stops and validations therefore fall between rollouts,
and a resumed run repeats the same computation bit for bit.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqlab.types import Context, Params, TrainState

Rollout = Callable[[Params, Any, Context], Any]  # of parameters and a batch
ROLLOUT_KEY = 1 << 30  # folded into the key of a step, so that rollouts and updates use different keys


def make_online_step(
    update: Callable[..., Any], rollout: Rollout, seed: int, updates: int, axis: str | None = None
) -> Callable[..., Any]:
    """Returns a step that makes a rollout from a batch and applies `update` to it `updates` times.

    `update` is a step of supervised training. The step number counts rollouts.
    """

    def step(state: TrainState, batch: Any, references: Any = None) -> tuple[TrainState, dict[str, jax.Array]]:
        key = rollout_key(seed, state.step)
        if axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        experience = rollout(state.params, batch, Context(key, references=references or {}))

        def body(current: TrainState, _: Any) -> tuple[TrainState, jax.Array]:
            after, result = update(current, experience, references)
            return after, result["finite"]

        first = dataclasses.replace(state, step=state.step * updates)
        after, finite = jax.lax.scan(body, first, length=updates)
        return dataclasses.replace(after, step=state.step + 1), {"finite": jnp.all(finite)}

    return step


def rollout_key(seed: int, step: Any) -> jax.Array:
    """Returns the random key of a rollout."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), ROLLOUT_KEY)
