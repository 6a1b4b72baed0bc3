"""Beam search over a model that is a table: logits [B T V V] by row, step and previous token."""

from typing import Any

import jax
import jax.numpy as jnp

from seqlab.config import Search
from seqlab.search.beam import beam_search
from seqlab.search.beam_state import begin_beam
from seqlab.search.decoder import Decoder, Span
from seqlab.search.hypotheses import Hypotheses
from seqlab.search.presets import DEFAULT, Rules
from seqlab.search.requests import RequestBatch
from seqlab.search.settings import ScoreWeights, split_settings
from seqlab.types import Tokens


def search_table(
    table: Any,
    limit: Any,
    *,
    eos: int,
    beam: int,
    groups: int = 1,
    minimum: int = 0,
    phrases: Any = None,
    nbest: int = 1,
    rules: Rules = DEFAULT,
    forbidden: tuple[int, ...] = (),
    alpha: Any = 0.6,
    word_penalty: Any = 0.0,
    diversity: Any = 0.0,
) -> Hypotheses:
    """From a first token 1, to the table's last step."""
    batch, length = table.shape[:2]

    def step(state: Any, token: jax.Array, t: jax.Array) -> Any:
        return table[jnp.arange(batch)[:, None], t, token], state

    settings = split_settings(Search(beam=beam, groups=groups), eos=eos, forbidden=forbidden, count=nbest)
    static, weights = settings.static._replace(rules=rules), ScoreWeights(alpha, word_penalty, 0.0, diversity)
    prompt = Tokens(jnp.ones((batch, 1), jnp.int32), jnp.ones((batch, 1), bool))
    requests = RequestBatch(
        None, prompt, jnp.asarray(limit), jnp.full(batch, minimum), jnp.arange(batch), phrases=phrases
    )
    search = begin_beam((), requests, static, length)
    decoder = Decoder(step, lambda state, parents: state)
    return beam_search(decoder, search, requests, Span(0, length, 0, length), static, weights).results()
