"""Ancestral sampling: every token drawn from what the model says, or from the head of it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.search.beam import Step
from seqlab.search.greedy import Writing, write_on
from seqlab.search.length_penalty import normalized
from seqlab.search.processors import History, Processor, process


def sample(
    step: Step,
    search: Writing,
    begin: Int[Array, ""] | int,
    end: Int[Array, ""] | int,
    start: int,
    limit: Int[Array, "B"],
    least: Int[Array, "B"],
    numbers: Int[Array, "B"],
    *,
    eos: int,
    seed: Int[Array, ""],
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float,
    rule: str,
    processors: Sequence[Processor],
    scored: bool = False,
    prefix: Int[Array, "B L"] | None = None,
) -> Writing:
    """Independent samples of each sentence. The draws hinge on `seed` and the sentence's number, and not on what
    stands beside it. A sample as long as it may be ends there: no draw, but it is paid for.

    Processors change what is drawn from; scores and log-probabilities are the model's own, as those of `beam_search`.
    """
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(numbers)

    def choose(logits: jax.Array, history: History) -> tuple[jax.Array, jax.Array, jax.Array]:
        scores, _ = process(logits, history, processors, jnp.minimum(least, limit), eos, True)
        draw = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, history.t), row))
        none = jnp.zeros_like(logits[..., :1])
        return draw(keys, scores), logits, none if scored else jax.nn.logsumexp(logits, axis=-1, keepdims=True)

    def score(log_probs: jax.Array, lengths: jax.Array) -> jax.Array:
        return normalized(log_probs, lengths, alpha, word_penalty, rule)

    return write_on(step, search, begin, end, start, limit, eos=eos, choose=choose, score=score, prefix=prefix)
