"""Greedy search: the best token at every step, without a beam's bookkeeping."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.search.beam import Hypotheses, Step, length_penalty


def greedy_search(
    step: Step,
    state: Any,
    first: Int[Array, "B"],
    start: int,
    limit: Int[Array, "B"],
    *,
    length: int,
    eos: int,
    alpha: Float[Array, ""] | float,
) -> Hypotheses:
    """One hypothesis a sentence; arguments, maximum length and scores as in `beam_search` (a tie: the smaller id)."""
    batch = first.shape[0]

    def going(carry: Any) -> jax.Array:
        i, *_, lengths = carry
        return (i < length) & (lengths == 0).any()

    def advance(carry: Any) -> Any:
        i, token, total, tokens, state, lengths = carry
        logits, state = step(state, token[:, None], start + i)
        logits = logits[:, 0]
        token = jnp.where(i + 1 >= limit, eos, logits.argmax(-1)).astype(jnp.int32)
        gain = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
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
        scores=(total / length_penalty(lengths, alpha))[:, None],
        log_probs=total[:, None],
    )
