"""The coverage penalty: a hypothesis whose attention has passed over parts of the source scores less (Wu et al. 2016,
equation 14): weight times the sum over the source of log(min(attention so far, 1)).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqlab.search.decoder import Reorder, Reward, Step

# (state, token [B K], t) -> logits, state, attention over the source [B K S]
AttentiveStep = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any, jax.Array]]
SEEN = 1e-6  # the minimum attention that counts, for its logarithm is in the score


def begin_coverage(state: Any, mask: Bool[Array, "B S"], hypotheses: int) -> tuple[Any, Float[Array, "B K S"]]:
    """A model's state, and the attention so far: none."""
    return state, jnp.zeros((mask.shape[0], hypotheses, mask.shape[1]))


def with_coverage(
    attentive_step: AttentiveStep, reorder: Reorder, mask: Bool[Array, "B S"], weight: Float[Array, ""] | float
) -> tuple[Step, Reorder, Reward]:
    """`step` and `reorder` that keep count of attention, and the reward (at most 0) that a state gives."""

    def step(state: Any, token: Int[Array, "B K"], t: Int[Array, ""]) -> tuple[jax.Array, Any]:
        logits, inner, attention = attentive_step(state[0], token, t)
        return logits, (inner, state[1] + attention)

    def move(state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state[0], parents), jnp.take_along_axis(state[1], parents[..., None], axis=1)

    def reward(state: Any) -> Float[Array, "B K"]:
        logs = jnp.log(jnp.clip(state[1], SEEN, 1.0))
        return weight * jnp.where(mask[:, None], logs, 0.0).sum(-1)

    return step, move, reward
