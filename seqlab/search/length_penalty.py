"""The score of a hypothesis: its log-probability divided by a length penalty."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.search.processors import NEVER


def length_penalty(
    length: Int[Array, "..."], alpha: Float[Array, ""] | float, rule: str = "gnmt"
) -> Float[Array, "..."]:
    """Returns the divisor of the sum of log-probabilities of n tokens: ((5 + n) / 6) ** alpha ("gnmt", Wu et al.
    2016, equation 14), n ** alpha ("power"), or 1 ("none").
    """
    if rule == "none":
        return jnp.ones(jnp.shape(length))
    return ((5.0 + length) / 6.0) ** alpha if rule == "gnmt" else jnp.maximum(length, 1.0) ** alpha


def normalized_score(
    log_probs: Float[Array, "..."],
    length: Int[Array, "..."],
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float,
    rule: str,
) -> Float[Array, "..."]:
    """Returns the score, (sum - word_penalty n) divided by the length penalty. The word penalty is Marian's."""
    return (log_probs - word_penalty * length) / length_penalty(length, alpha, rule)


def score_upper_bound(
    log_probs: Float[Array, "B"],
    soonest: jax.Array,
    limit: Int[Array, "B"],
    longest: int,
    score: Callable[[jax.Array, jax.Array], jax.Array],
) -> Float[Array, "B"]:
    """Returns an upper bound on the final score of a hypothesis, assuming that its sum of log-probabilities does not
    change and that its length, from `soonest` (a scalar, or [B 1]) to its limit, is the most favorable one.
    """
    n = jnp.arange(1, longest + 1)
    possible = (n >= soonest) & (n <= limit[:, None])
    return jnp.where(possible, score(log_probs[:, None], n), 2 * NEVER).max(-1)
