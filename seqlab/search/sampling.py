"""Samples from a generator, optionally with temperature, top-k and top-p."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from seqlab.search.decoder import Decoder, Span
from seqlab.search.length_penalty import normalized_score
from seqlab.search.processors import NEVER, History, make_processors, process
from seqlab.search.requests import RequestBatch
from seqlab.search.sequences import SequenceState, extend_sequences
from seqlab.search.settings import ScoreWeights, StaticSettings


def sample(
    decoder: Decoder,
    search_state: SequenceState,
    requests: RequestBatch,
    span: Span,
    static: StaticSettings,
    weights: ScoreWeights,
    seed: Int[Array, ""],
) -> SequenceState:
    """Draws independent samples for each sentence. The draws depend on `seed` and the number of the sentence, but not
    on the other rows of the batch. At the maximum length a sample ends: its EOS is not drawn, but is scored.

    Processors change the distribution of the draws. Scores and log-probabilities are those of the model, as in
    `beam_search`.
    """
    processors, rule = make_processors(static), static.rules.length_penalty
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(requests.numbers)

    def choose(logits: jax.Array, history: History) -> tuple[jax.Array, jax.Array, jax.Array]:
        minimum = jnp.minimum(requests.minimum, requests.limit)
        scores, _ = process(logits, history, processors, minimum, static, renormalize=True)
        possible = (scores > NEVER / 2).any(-1, keepdims=True)
        draw = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, history.t), row))
        zero = jnp.zeros_like(logits[..., :1])
        normalizer = zero if decoder.normalized else jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        return draw(keys, scores), jnp.where(possible, logits, NEVER), normalizer

    def score(log_probs: jax.Array, lengths: jax.Array) -> jax.Array:
        return normalized_score(log_probs, lengths, weights.alpha, weights.word_penalty, rule)

    return extend_sequences(decoder, search_state, requests, span, choose, score, static.eos)
