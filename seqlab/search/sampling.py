"""Ancestral sampling: every token drawn from what the model says, or from the head of it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.search.beam import Hypotheses, Step
from seqlab.search.processors import History, Processor, process
from seqlab.search.rules import normalized


def sample(
    step: Step,
    state: Any,
    first: Int[Array, "B"],
    start: int,
    limit: Int[Array, "B"],
    least: Int[Array, "B"],
    numbers: Int[Array, "B"],
    *,
    length: int,
    eos: int,
    samples: int,
    seed: Int[Array, ""],
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float,
    rule: str,
    processors: Sequence[Processor],
    scored: bool = False,
) -> Hypotheses:
    """Independent samples of each sentence, the likeliest first. The draws hinge on `seed` and the sentence's number,
    and not on what stands beside it. A sample as long as it may be ends there: no draw, but it is paid for.

    Processors change what is drawn from; scores and log-probabilities are the model's own, as those of `beam_search`.
    """
    batch = first.shape[0]
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(numbers)

    def going(carry: Any) -> jax.Array:
        i, *_, lengths = carry
        return (i < length) & (lengths == 0).any()

    def advance(carry: Any) -> Any:
        i, token, total, tokens, state, lengths = carry
        logits, state = step(state, token, start + i)
        scores, _ = process(logits, History(tokens, i), processors, jnp.minimum(least, limit), eos, True)
        draw = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, i), row))(keys, scores)
        token = jnp.where((i + 1 >= limit)[:, None], eos, draw).astype(jnp.int32)
        gain = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
        if not scored:
            gain -= jax.nn.logsumexp(logits, axis=-1)
        open_ = lengths == 0
        total = total + jnp.where(open_, gain, 0.0)
        tokens = tokens.at[:, :, i].set(jnp.where(open_, token, 0))
        lengths = jnp.where(open_ & (token == eos), i + 1, lengths)
        return i + 1, token, total, tokens, state, lengths

    carry = (
        jnp.int32(0),
        jnp.repeat(first[:, None], samples, axis=1).astype(jnp.int32),
        jnp.zeros((batch, samples)),
        jnp.zeros((batch, samples, length), jnp.int32),
        state,
        jnp.zeros((batch, samples), jnp.int32) + (limit <= 0)[:, None],
    )
    _, _, total, tokens, _, lengths = jax.lax.while_loop(going, advance, carry)
    found = Hypotheses(tokens, lengths, normalized(total, lengths, alpha, word_penalty, rule), total)
    order = jnp.argsort(-found.scores, axis=1)
    return jax.tree.map(lambda x: x[jnp.arange(batch)[:, None], order], found)
