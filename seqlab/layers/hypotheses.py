"""The state of K hypotheses per sentence, for layers that store one state per hypothesis."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def repeat(state: Any, hypotheses: int) -> Any:
    """Repeats leaves [B ...] to [B K ...]: K identical hypotheses."""
    return jax.tree.map(lambda x: jnp.repeat(x[:, None], hypotheses, axis=1), state)


def reorder(state: Any, parents: Int[Array, "B K"]) -> Any:
    """Gathers leaves [B K ...]: hypothesis k takes the state of hypothesis `parents[b, k]`."""
    rows = jnp.arange(parents.shape[0])[:, None]
    return jax.tree.map(lambda x: x[rows, parents], state)
