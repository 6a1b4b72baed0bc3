"""TODO search.length_penalty."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def length_penalty(
    length: Int[Array, "..."], alpha: Float[Array, ""] | float, rule: str = "gnmt"
) -> Float[Array, "..."]:
    """What a sum of log-probabilities over n tokens is divided by."""
    if rule == "none":
        return jnp.ones(jnp.shape(length))
    return ((5.0 + length) / 6.0) ** alpha if rule == "gnmt" else jnp.maximum(length, 1.0) ** alpha


def normalized(
    log_probs: Float[Array, "..."],
    length: Int[Array, "..."],
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float,
    rule: str,
) -> Float[Array, "..."]:
    """The score: (sum - word_penalty n) over the length penalty (the word penalty is Marian's)."""
    return (log_probs - word_penalty * length) / length_penalty(length, alpha, rule)
