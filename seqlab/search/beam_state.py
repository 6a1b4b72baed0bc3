"""The state of a beam search between two steps, and the values that all its steps share."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from seqlab.search.decoder import Decoder
from seqlab.search.hypotheses import Hypotheses, best_first
from seqlab.search.length_penalty import normalized_score
from seqlab.search.presets import Rules
from seqlab.search.processors import NEVER, Processor
from seqlab.search.requests import RequestBatch
from seqlab.search.settings import ScoreWeights, StaticSettings


@struct.dataclass
class Beam:
    """The unfinished and the finished hypotheses of each sentence.

    Of unfinished hypotheses: the last tokens and sums of log-probabilities [B K], all tokens [B K L], and the number
    of written tokens of each phrase [B K P]. `count` [B] is the number of hypotheses that have finished. Some stop
    rules need `topped` [B], whether the best continuation of any step has ended, and `ended` [B K], whether a
    hypothesis has ended in a place of the beam. `done` [B] says whether the search for a sentence is over.
    """

    token: jax.Array
    log_probs: jax.Array
    tokens: jax.Array
    finished: Hypotheses
    count: jax.Array
    topped: jax.Array
    ended: jax.Array
    done: jax.Array
    phrase_progress: jax.Array | None


@struct.dataclass
class BeamState:
    """A search between two steps: the model's state of all hypotheses, and one beam per group."""

    state: Any
    beams: list[Beam]

    @property
    def done(self) -> jax.Array:
        """Whether each sentence is done [B]."""
        return jnp.stack([beam.done for beam in self.beams]).all(0)

    def grow(self, state: Any, more: int) -> "BeamState":
        """Returns the search with room for `more` additional tokens. `state` is the model's grown state."""

        def padded(tokens: jax.Array) -> jax.Array:
            return jnp.pad(tokens, ((0, 0), (0, 0), (0, more)))

        beams = [
            dataclasses.replace(
                beam,
                tokens=padded(beam.tokens),
                finished=dataclasses.replace(beam.finished, tokens=padded(beam.finished.tokens)),
            )
            for beam in self.beams
        ]
        return BeamState(state, beams)

    def results(self) -> Hypotheses:
        """Returns the best finished hypotheses so far, best first."""
        if len(self.beams) == 1:
            return self.beams[0].finished
        joined = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *[beam.finished for beam in self.beams])
        return best_first(joined, joined.scores.shape[1])


def begin_beam(state: Any, requests: RequestBatch, static: StaticSettings, length: int) -> BeamState:
    """Returns a search before its first step, with room for `length` tokens."""
    first, phrases = requests.prompt.ids[:, -1], requests.phrases
    batch, size = first.shape[0], static.beam // static.groups
    empty = jnp.full((batch, size), 2 * NEVER, jnp.float32)
    tokens = jnp.zeros((batch, size, length), jnp.int32)
    beam = Beam(
        token=jnp.repeat(first[:, None], size, axis=1).astype(jnp.int32),
        # All hypotheses are equal at first: only one may be extended.
        log_probs=jnp.full((batch, size), NEVER, jnp.float32).at[:, 0].set(0.0),
        tokens=tokens,
        finished=Hypotheses(tokens, jnp.zeros((batch, size), jnp.int32), empty, empty),
        count=jnp.zeros(batch, jnp.int32),
        topped=jnp.zeros(batch, bool),
        ended=jnp.zeros((batch, size), bool),
        done=requests.limit <= 0,
        phrase_progress=None if phrases is None else jnp.zeros((batch, size, phrases.shape[1]), jnp.int32),
    )
    return BeamState(state, [beam] * static.groups)


class BeamContext(NamedTuple):
    """The values that all steps of a search share."""

    rules: Rules
    requests: RequestBatch
    static: StaticSettings
    weights: ScoreWeights
    processors: Sequence[Processor]
    decoder: Decoder
    max_length: int

    def score(self, log_probs: jax.Array, n: jax.Array) -> jax.Array:
        """Returns the scores of hypotheses of n tokens."""
        return normalized_score(
            log_probs, n, self.weights.alpha, self.weights.word_penalty, self.rules.length_penalty
        )
