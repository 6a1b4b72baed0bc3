"""Beam search over a model that is a table: logits [B T V V] by row, step and previous token."""

from typing import Any

import jax
import jax.numpy as jnp

from seqlab.search.beam import Hypotheses, beam_search, begin_beam


def search_table(
    table: Any, limit: Any, *, eos: int, beam: int, groups: int = 1, least: int = 0, phrases: Any = None, **asked: Any
) -> Hypotheses:
    """From a first token 1, to the table's last step; `asked` is what `beam_search` takes besides."""
    batch, length = table.shape[:2]

    def step(state: Any, token: jax.Array, t: jax.Array) -> Any:
        return table[jnp.arange(batch)[:, None], t, token], state

    limit, first = jnp.asarray(limit), jnp.ones(batch, jnp.int32)
    search = begin_beam((), first, limit, phrases, length=length, beam=beam, groups=groups)
    return beam_search(
        step, lambda state, parents: state, search, 0, length, 0, limit, jnp.full(batch, least), most=length, eos=eos,
        phrases=phrases, **asked,
    ).results()  # fmt: skip
