"""Greedy search, the best token at every step; and the loop for all hypotheses that go on without a beam."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.search.beam import Hypotheses, Step, told_now
from seqlab.search.processors import History, Processor, process
from seqlab.search.rules import DEFAULT, Rules, normalized

# logits [B K V], history -> tokens [B K]; scores [B K V], and what to subtract to have log-probabilities [B K 1]
Choose = Callable[[jax.Array, History], tuple[jax.Array, jax.Array, jax.Array]]


def write_on(
    step: Step,
    state: Any,
    first: Int[Array, "B"],
    start: int,
    limit: Int[Array, "B"],
    *,
    length: int,
    eos: int,
    hypotheses: int,
    choose: Choose,
    score: Callable[[jax.Array, jax.Array], jax.Array],
    prefix: Int[Array, "B L"] | None = None,
) -> Hypotheses:
    """Hypotheses of each sentence that never mix, in no order: each goes on with what `choose` says until EOS. One
    that is as long as it may be must end, and pays for it. `score` is of log-probabilities and lengths. `prefix` is
    what they begin with, -1 where they are free.
    """
    batch = first.shape[0]

    def going(carry: Any) -> jax.Array:
        i, *_, lengths = carry
        return (i < length) & (lengths == 0).any()

    def advance(carry: Any) -> Any:
        i, token, total, tokens, state, lengths = carry
        logits, state = step(state, token, start + i)
        chosen, scores, normalizer = choose(logits, History(tokens, i))
        token = jnp.where((i + 1 >= limit)[:, None], eos, chosen).astype(jnp.int32)
        if prefix is not None:
            told = told_now(prefix, i)[:, None]
            token = jnp.where(told >= 0, told, token)
        gain = (jnp.take_along_axis(scores, token[..., None], axis=-1) - normalizer)[..., 0]
        open_ = lengths == 0
        total = total + jnp.where(open_, gain, 0.0)
        tokens = tokens.at[:, :, i].set(jnp.where(open_, token, 0))
        lengths = jnp.where(open_ & (token == eos), i + 1, lengths)
        return i + 1, token, total, tokens, state, lengths

    carry = (
        jnp.int32(0),
        jnp.repeat(first[:, None], hypotheses, axis=1).astype(jnp.int32),
        jnp.zeros((batch, hypotheses)),
        jnp.zeros((batch, hypotheses, length), jnp.int32),
        state,
        jnp.zeros((batch, hypotheses), jnp.int32),
    )
    _, _, total, tokens, _, lengths = jax.lax.while_loop(going, advance, carry)
    return Hypotheses(tokens, lengths, score(total, lengths), total)


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
    prefix: Int[Array, "B L"] | None = None,
) -> Hypotheses:
    """One hypothesis a sentence; arguments, maximum length and scores as in `beam_search` (a tie: the smaller id)."""

    def choose(logits: jax.Array, history: History) -> tuple[jax.Array, jax.Array, jax.Array]:
        least_now = jnp.minimum(least, limit)
        scores, normalizer = process(logits, history, processors, least_now, eos, rules.renormalize, scored)
        return scores.argmax(-1), scores, normalizer

    def score(log_probs: jax.Array, lengths: jax.Array) -> jax.Array:
        return normalized(log_probs, lengths, alpha, word_penalty, rules.length)

    return write_on(
        step, state, first, start, limit, length=length, eos=eos, hypotheses=1, choose=choose, score=score,
        prefix=prefix,
    )  # fmt: skip
