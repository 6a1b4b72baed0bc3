"""One vector for a whole sequence."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def last_real(values: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Returns the vector of the last real position, where pads follow; of an empty row, that of the first."""
    last = jnp.maximum(mask.sum(axis=1) - 1, 0)
    return jnp.take_along_axis(values, last[:, None, None], axis=1)[:, 0]
