"""Greedy search, the best token at every step; and the loop for all hypotheses that go on without a beam."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from seqlab.search.beam import Hypotheses, Step, best_first, told_now, top_k
from seqlab.search.length_penalty import normalized
from seqlab.search.processors import History, Processor, process
from seqlab.search.rules import DEFAULT, Rules

# logits [B K V], history -> tokens [B K]; scores [B K V], and what to subtract to have log-probabilities [B K 1]
Choose = Callable[[jax.Array, History], tuple[jax.Array, jax.Array, jax.Array]]


@struct.dataclass
class Writing:
    """Where hypotheses that never mix have come to: the model's state, their last tokens [B K], all their tokens
    [B K L], sums of log-probabilities and scores [B K], and their lengths [B K], 0 while they go on.
    """

    state: Any
    token: jax.Array
    tokens: jax.Array
    log_probs: jax.Array
    scores: jax.Array
    lengths: jax.Array

    @property
    def done(self) -> jax.Array:
        """Which sentences are done [B]."""
        return (self.lengths > 0).all(-1)

    def longer(self, state: Any, more: int) -> "Writing":
        """With room for `more` tokens, and a state that has it too."""
        return dataclasses.replace(self, state=state, tokens=jnp.pad(self.tokens, ((0, 0), (0, 0), (0, more))))

    def results(self) -> Hypotheses:
        """The hypotheses so far, best first."""
        found = Hypotheses(self.tokens, self.lengths, self.scores, self.log_probs)
        return best_first(found, self.scores.shape[1])


def begin_writing(state: Any, first: Int[Array, "B"], *, length: int, hypotheses: int) -> Writing:
    """Before the first step, with room for `length` tokens."""
    shape = (first.shape[0], hypotheses)
    return Writing(
        state=state,
        token=jnp.repeat(first[:, None], hypotheses, axis=1).astype(jnp.int32),
        tokens=jnp.zeros((*shape, length), jnp.int32),
        log_probs=jnp.zeros(shape),
        scores=jnp.zeros(shape),
        lengths=jnp.zeros(shape, jnp.int32),
    )


def write_on(
    step: Step,
    search: Writing,
    begin: Int[Array, ""] | int,
    end: Int[Array, ""] | int,
    start: int,
    limit: Int[Array, "B"],
    *,
    eos: int,
    choose: Choose,
    score: Callable[[jax.Array, jax.Array], jax.Array],
    prefix: Int[Array, "B L"] | None = None,
) -> Writing:
    """Goes on from step `begin` to step `end`, or until all is done, with what `choose` says until EOS. A hypothesis
    that is as long as it may be must end, and pays for it. `score` is of log-probabilities and lengths. `prefix` is
    what they begin with, -1 where they are free.
    """

    def going(carry: tuple[jax.Array, Writing]) -> jax.Array:
        i, now = carry
        return (i < end) & ~now.done.all()

    def advance(carry: tuple[jax.Array, Writing]) -> tuple[jax.Array, Writing]:
        i, now = carry
        logits, state = step(now.state, now.token, start + i)
        chosen, scores, normalizer = choose(logits, History(now.tokens, i))
        token = jnp.where((i + 1 >= limit)[:, None], eos, chosen).astype(jnp.int32)
        if prefix is not None:
            told = told_now(prefix, i)[:, None]
            token = jnp.where(told >= 0, told, token)
        gain = (jnp.take_along_axis(scores, token[..., None], axis=-1) - normalizer)[..., 0]
        goes_on = now.lengths == 0
        log_probs = now.log_probs + jnp.where(goes_on, gain, 0.0)
        tokens = now.tokens.at[:, :, i].set(jnp.where(goes_on, token, 0))
        lengths = jnp.where(goes_on & (token == eos), i + 1, now.lengths)
        return i + 1, Writing(state, token, tokens, log_probs, score(log_probs, lengths), lengths)

    return jax.lax.while_loop(going, advance, (jnp.int32(begin), search))[1]


def greedy_search(
    step: Step,
    search: Writing,
    begin: Int[Array, ""] | int,
    end: Int[Array, ""] | int,
    start: int,
    limit: Int[Array, "B"],
    least: Int[Array, "B"],
    *,
    eos: int,
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float = 0.0,
    rules: Rules = DEFAULT,
    processors: Sequence[Processor] = (),
    scored: bool = False,
    prefix: Int[Array, "B L"] | None = None,
) -> Writing:
    """One hypothesis a sentence; arguments, maximum length and scores as in `beam_search` (a tie: the smaller id)."""

    def choose(logits: jax.Array, history: History) -> tuple[jax.Array, jax.Array, jax.Array]:
        least_now = jnp.minimum(least, limit)
        scores, normalizer = process(logits, history, processors, least_now, eos, rules.renormalize, scored)
        return top_k(scores, 1)[1][..., 0], scores, normalizer  # several times as fast as argmax on CPUs

    def score(log_probs: jax.Array, lengths: jax.Array) -> jax.Array:
        return normalized(log_probs, lengths, alpha, word_penalty, rules.length)

    return write_on(step, search, begin, end, start, limit, eos=eos, choose=choose, score=score, prefix=prefix)
