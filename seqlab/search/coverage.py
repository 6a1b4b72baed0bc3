"""The coverage penalty, which lowers the score of hypotheses whose attention has skipped parts of the source (Wu et
al. 2016, equation 14): weight times the sum over the source of log(min(total attention so far, 1)).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqlab.search.decoder import Reorder, Reward, Step

# (state, token [B K], t) -> logits, state, attention over the source [B K S]
AttentiveStep = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any, jax.Array]]
SEEN = 1e-6  # lower bound on the total attention, so that its logarithm is finite


def begin_coverage(state: Any, mask: Bool[Array, "B S"], hypotheses: int) -> tuple[Any, Float[Array, "B K S"]]:
    """Returns a model's state with the total attention so far, which is zero."""
    return state, jnp.zeros((mask.shape[0], hypotheses, mask.shape[1]))


def with_coverage(
    attentive_step: AttentiveStep, reorder: Reorder, mask: Bool[Array, "B S"], weight: Float[Array, ""] | float
) -> tuple[Step, Reorder, Reward]:
    """Returns `step` and `reorder` that add up the attention, and the reward (at most 0) of a state."""

    def step(state: Any, token: Int[Array, "B K"], t: Int[Array, ""]) -> tuple[jax.Array, Any]:
        logits, inner, attention = attentive_step(state[0], token, t)
        return logits, (inner, state[1] + attention)

    def move(state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state[0], parents), jnp.take_along_axis(state[1], parents[..., None], axis=1)

    def reward(state: Any) -> Float[Array, "B K"]:
        logs = jnp.log(jnp.clip(state[1], SEEN, 1.0))
        return weight * jnp.where(mask[:, None], logs, 0.0).sum(-1)

    return step, move, reward
