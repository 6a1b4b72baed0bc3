"""Greedy search: the best token at every step, without a beam's bookkeeping."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.search.beam import Hypotheses, Step
from seqlab.search.processors import History, Processor, process
from seqlab.search.rules import DEFAULT, Rules, normalized


def greedy_search(
    step: Step,
    state: Any,
    first: Int[Array, "B"],
    start: int,
    limit: Int[Array, "B"],
    least: Int[Array, "B"],
    *,
    length: int,
    eos: int,
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float = 0.0,
    rules: Rules = DEFAULT,
    processors: Sequence[Processor] = (),
    scored: bool = False,
) -> Hypotheses:
    """One hypothesis a sentence; arguments, maximum length and scores as in `beam_search` (a tie: the smaller id)."""
    batch, least = first.shape[0], jnp.minimum(least, limit)

    def going(carry: Any) -> jax.Array:
        i, *_, lengths = carry
        return (i < length) & (lengths == 0).any()

    def advance(carry: Any) -> Any:
        i, token, total, tokens, state, lengths = carry
        logits, state = step(state, token[:, None], start + i)
        history = History(tokens[:, None], i)
        logits, normalizer = process(logits, history, processors, least, eos, rules.renormalize, scored)
        logits = logits[:, 0]
        token = jnp.where(i + 1 >= limit, eos, logits.argmax(-1)).astype(jnp.int32)
        gain = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0] - normalizer[:, 0, 0]
        open_ = lengths == 0
        total = total + jnp.where(open_, gain, 0.0)
        tokens = tokens.at[:, i].set(jnp.where(open_, token, 0))
        lengths = jnp.where(open_ & (token == eos), i + 1, lengths)
        return i + 1, token, total, tokens, state, lengths

    tokens = jnp.zeros((batch, length), jnp.int32)
    carry = (
        jnp.int32(0),
        first.astype(jnp.int32),
        jnp.zeros(batch),
        tokens,
        state,
        jnp.zeros(batch, jnp.int32),
    )
    _, _, total, tokens, _, lengths = jax.lax.while_loop(going, advance, carry)
    return Hypotheses(
        tokens=tokens[:, None],
        lengths=lengths[:, None],
        scores=normalized(total, lengths, alpha, word_penalty, rules.length)[:, None],
        log_probs=total[:, None],
    )
