"""Finished hypotheses, best first."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from seqlab.search.processors import NEVER


@struct.dataclass
class Hypotheses:
    """Finished hypotheses of each sentence, best first.

    `tokens` int [B K L], EOS last, then zeros; `lengths` int [B K], including EOS; `scores` float32 [B K], normalized
    by length; `log_probs` float32 [B K], the plain sums. A hypothesis that does not exist has length 0 and a score of
    `NEVER` or less.
    """

    tokens: jax.Array
    lengths: jax.Array
    scores: jax.Array
    log_probs: jax.Array


def merge(
    finished: Hypotheses,
    tokens: Int[Array, "B N L"],
    log_probs: Float[Array, "B N"],
    scores: Float[Array, "B N"],
    may_finish: jax.Array,
    length: jax.Array,
) -> Hypotheses:
    """Returns the K best of the finished hypotheses and those that finish now, at `length` tokens."""
    new = Hypotheses(
        tokens=tokens,
        lengths=jnp.where(may_finish, length, 0),
        scores=jnp.where(may_finish, scores, 2 * NEVER),
        log_probs=jnp.where(may_finish, log_probs, 2 * NEVER),
    )
    joined = jax.tree.map(lambda old, fresh: jnp.concatenate([old, fresh], axis=1), finished, new)
    return best_first(joined, finished.scores.shape[1])


def best_first(hypotheses: Hypotheses, count: int) -> Hypotheses:
    """Returns the `count` best hypotheses, best first. Ties go to the earlier one."""
    _, best = jax.lax.top_k(hypotheses.scores, count)
    rows = jnp.arange(best.shape[0])[:, None]
    return jax.tree.map(lambda x: x[rows, best], hypotheses)
