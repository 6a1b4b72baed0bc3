"""Vectors that summarize a whole sequence."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mean_of_real(values: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Returns the mean of the vectors at real positions; zero for an empty row."""
    return (values * mask[..., None]).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)[:, None]


def last_real(values: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Returns the vector at the last real position of rows padded on the right; at the first position of an empty
    row.
    """
    last = jnp.maximum(mask.sum(axis=1) - 1, 0)
    return jnp.take_along_axis(values, last[:, None, None], axis=1)[:, 0]
