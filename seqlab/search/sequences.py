"""Hypotheses that are extended without a beam: their state, and the loop over their tokens."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from seqlab.search.candidates import forced_token
from seqlab.search.decoder import Decoder, Span
from seqlab.search.hypotheses import Hypotheses, best_first
from seqlab.search.processors import History
from seqlab.search.requests import RequestBatch

# (logits [B K V], history) -> tokens [B K], scores [B K V], and values to subtract for log-probabilities [B K 1]
Choose = Callable[[jax.Array, History], tuple[jax.Array, jax.Array, jax.Array]]


@struct.dataclass
class SequenceState:
    """Independent hypotheses between two steps: the model's state, their last tokens [B K], all their tokens [B K L],
    sums of log-probabilities and scores [B K], and their lengths [B K], 0 while they are unfinished.
    """

    state: Any
    token: jax.Array
    tokens: jax.Array
    log_probs: jax.Array
    scores: jax.Array
    lengths: jax.Array

    @property
    def done(self) -> jax.Array:
        """Whether each sentence is done [B]."""
        return (self.lengths > 0).all(-1)

    def grow(self, state: Any, more: int) -> "SequenceState":
        """Returns the search with room for `more` additional tokens. `state` is the model's grown state."""
        return dataclasses.replace(self, state=state, tokens=jnp.pad(self.tokens, ((0, 0), (0, 0), (0, more))))

    def results(self) -> Hypotheses:
        """Returns the hypotheses so far, best first."""
        hypotheses = Hypotheses(self.tokens, self.lengths, self.scores, self.log_probs)
        return best_first(hypotheses, self.scores.shape[1])


def begin_sequences(state: Any, first: Int[Array, "B"], *, length: int, hypotheses: int) -> SequenceState:
    """Returns the search before its first step, with room for `length` tokens. `first` holds the last tokens of the
    prompts.
    """
    shape = (first.shape[0], hypotheses)
    return SequenceState(
        state=state,
        token=jnp.repeat(first[:, None], hypotheses, axis=1).astype(jnp.int32),
        tokens=jnp.zeros((*shape, length), jnp.int32),
        log_probs=jnp.zeros(shape),
        scores=jnp.zeros(shape),
        lengths=jnp.zeros(shape, jnp.int32),
    )


def extend_sequences(
    decoder: Decoder,
    search_state: SequenceState,
    requests: RequestBatch,
    span: Span,
    choose: Choose,
    score: Callable[[jax.Array, jax.Array], jax.Array],
    eos: int,
) -> SequenceState:
    """Extends hypotheses over a span of steps, or until all are done, by the tokens that `choose` returns, until EOS.
    At its maximum length a hypothesis must end, and its EOS is scored. `score` is a function of log-probabilities and
    lengths. Hypotheses begin with the tokens of `requests.prefix`, in which -1 allows any token.
    """

    def is_running(carry: tuple[jax.Array, SequenceState]) -> jax.Array:
        i, current = carry
        return (i < span.end) & ~current.done.all()

    def advance(carry: tuple[jax.Array, SequenceState]) -> tuple[jax.Array, SequenceState]:
        i, current = carry
        logits, state = decoder.step(current.state, current.token, span.prompt_end + i)
        chosen, scores, normalizer = choose(logits, History(current.tokens, i, requests.continued_prompt))
        token = jnp.where((i + 1 >= requests.limit)[:, None], eos, chosen).astype(jnp.int32)
        if requests.prefix is not None:
            forced = forced_token(requests.prefix, i)[:, None]
            token = jnp.where(forced >= 0, forced, token)
        gain = (jnp.take_along_axis(scores, token[..., None], axis=-1) - normalizer)[..., 0]
        unfinished = current.lengths == 0
        log_probs = current.log_probs + jnp.where(unfinished, gain, 0.0)
        tokens = current.tokens.at[:, :, i].set(jnp.where(unfinished, token, 0))
        lengths = jnp.where(unfinished & (token == eos), i + 1, current.lengths)
        return i + 1, SequenceState(state, token, tokens, log_probs, score(log_probs, lengths), lengths)

    return jax.lax.while_loop(is_running, advance, (jnp.int32(span.begin), search_state))[1]
