"""Greedy search: the best token at every step."""

import jax
import jax.numpy as jnp

from seqlab.search.candidates import top_k
from seqlab.search.decoder import Decoder, Span
from seqlab.search.length_penalty import normalized_score
from seqlab.search.processors import History, make_processors, process
from seqlab.search.requests import RequestBatch
from seqlab.search.sequences import SequenceState, extend_sequences
from seqlab.search.settings import ScoreWeights, StaticSettings


def greedy_search(
    decoder: Decoder,
    search_state: SequenceState,
    requests: RequestBatch,
    span: Span,
    static: StaticSettings,
    weights: ScoreWeights,
) -> SequenceState:
    """Generates one hypothesis per sentence. Arguments, maximum length and scores are as in `beam_search`. Ties go to
    the smaller id.
    """
    processors, rules = make_processors(static), static.rules

    def choose(logits: jax.Array, history: History) -> tuple[jax.Array, jax.Array, jax.Array]:
        minimum = jnp.minimum(requests.minimum, requests.limit)
        scores, normalizer = process(
            logits, history, processors, minimum, static, rules.renormalize, decoder.normalized
        )
        return top_k(scores, 1)[1][..., 0], scores, normalizer  # several times as fast as argmax on CPUs

    def score(log_probs: jax.Array, lengths: jax.Array) -> jax.Array:
        return normalized_score(log_probs, lengths, weights.alpha, weights.word_penalty, rules.length_penalty)

    return extend_sequences(decoder, search_state, requests, span, choose, score, static.eos)
