"""The state of K hypotheses a sentence, for layers whose state moves with its hypothesis."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def repeat(state: Any, hypotheses: int) -> Any:
    """Leaves [B ...] to [B K ...]: K hypotheses that are all alike."""
    return jax.tree.map(lambda x: jnp.repeat(x[:, None], hypotheses, axis=1), state)


def reorder(state: Any, parents: Int[Array, "B K"]) -> Any:
    """Leaves [B K ...]: hypothesis k continues the state of hypothesis `parents[b, k]`."""
    rows = jnp.arange(parents.shape[0])[:, None]
    return jax.tree.map(lambda x: x[rows, parents], state)
