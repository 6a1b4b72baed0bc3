"""Mixtures of the rows of a batch (Zhang et al. 2018; Verma et al. 2019)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

KEY = 1 << 29  # folded into the key of dropout, so that mixtures and dropout masks are independent


def draw_mixture(
    key: jax.Array, weights: Float[Array, "B"], alpha: float
) -> tuple[Int[Array, "B"], Float[Array, ""]]:
    """Returns a random partner of each row, and the share of each row in its mixture, from Beta(alpha, alpha). The
    partners of rows with a positive weight are a permutation of these rows.
    """
    share_key, order_key = jax.random.split(jax.random.fold_in(key, KEY))
    real = weights > 0
    order = jnp.argsort(jnp.where(real, jax.random.uniform(order_key, weights.shape), 2.0))  # real rows first
    return order[jnp.maximum(jnp.cumsum(real) - 1, 0)], jax.random.beta(share_key, alpha, alpha)
