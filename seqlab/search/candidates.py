"""The continuations that a step of beam search considers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.search.beam_state import Beam, BeamContext
from seqlab.search.constraints import all_written, constrained_continuations
from seqlab.search.processors import NEVER, History, process

TOP_BLOCK = 64  # values per block of the two-stage top-k


class Candidates(NamedTuple):
    """The continuations that a step considers [B C], best first: parents, tokens and summed log-probabilities; the
    number of written tokens of each phrase after them [B C P]; whether they may finish, and whether they may be
    returned without EOS at the maximum length.
    """

    parents: jax.Array
    token: jax.Array
    log_probs: jax.Array
    phrase_progress: jax.Array | None
    may_finish: jax.Array
    may_be_lost: jax.Array


def propose(
    old: Beam, logits: jax.Array, penalties: jax.Array | None, i: jax.Array, context: BeamContext
) -> Candidates:
    """Returns the continuations by token `i`, which prefixes, the maximum length and phrases may force."""
    rules, requests, size, eos = context.rules, context.requests, old.token.shape[1], context.static.eos
    history = History(old.tokens, i, requests.continued_prompt)
    logits, normalizer = process(
        logits, history, context.processors, requests.minimum, context.static, rules.renormalize,
        context.decoder.normalized,
    )  # fmt: skip
    last = i + 1 >= requests.limit
    forced_ids = jnp.where(last, eos, -1) if rules.at_max_length == "end" else jnp.full(len(last), -1)
    if requests.prefix is not None:
        forced = forced_token(requests.prefix, i)
        forced_ids = jnp.where(forced >= 0, forced, forced_ids)
    logits = jax.lax.cond((forced_ids >= 0).any(), lambda: restrict(logits, forced_ids), lambda: logits)
    may_end = size if rules.finish == "beam" else 2 * size
    if requests.phrases is not None and old.phrase_progress is not None:
        parents, token, log_probs, phrase_progress = constrained_continuations(
            requests.phrases, old.phrase_progress, logits, normalizer, old.log_probs, eos, may_end
        )
        written = all_written(requests.phrases, phrase_progress)
        return Candidates(parents, token, log_probs, phrase_progress, may_finish=written, may_be_lost=written)
    count = size if rules.survivors in ("shrink", "stay") else 2 * size
    width = size + 1 if rules.finish == "beam" else 2 * size
    parents, token, log_probs = best_continuations(logits, normalizer, old.log_probs, count, width, penalties)
    may_finish = jnp.broadcast_to(jnp.arange(count) < may_end, parents.shape)
    return Candidates(parents, token, log_probs, None, may_finish, may_be_lost=jnp.ones_like(may_finish))


def forced_token(prefix: Int[Array, "B L"], i: Int[Array, ""]) -> Int[Array, "B"]:
    """Returns the `i`-th token of each prefix, or -1 where any token is allowed."""
    return jnp.where(i < prefix.shape[1], prefix[:, jnp.minimum(i, prefix.shape[1] - 1)], -1)


def restrict(logits: Float[Array, "B K V"], forced_ids: Int[Array, "B"]) -> Float[Array, "B K V"]:
    """Returns the logits, `NEVER` for all tokens except the forced one in sentences that have one."""
    barred = (forced_ids >= 0)[:, None] & (jnp.arange(logits.shape[-1]) != forced_ids[:, None])
    return jnp.where(barred[:, None], NEVER, logits)


def best_continuations(
    logits: Float[Array, "B K V"],
    normalizer: Float[Array, "B K 1"],
    log_probs: Float[Array, "B K"],
    count: int,
    width: int,
    penalties: Float[Array, "B V"] | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the `count` best continuations of each sentence, each [B count]: parents, tokens and summed
    log-probabilities. `penalties` [B V] are subtracted for the choice only.

    At most `width` continuations of one hypothesis can matter, so the vocabulary is reduced to these before the
    log-sum-exp is subtracted.
    """
    batch, beam, vocabulary = logits.shape
    width = min(width, vocabulary)
    best, token = top_k(logits if penalties is None else logits - penalties[:, None], width)  # [B K W]
    total = jnp.maximum(log_probs[..., None] + best - normalizer, 2 * NEVER).reshape(batch, -1)
    token = token.reshape(batch, -1)
    missing = max(count - total.shape[1], 0)  # a tiny vocabulary cannot fill the list
    total = jnp.pad(total, ((0, 0), (0, missing)), constant_values=2 * NEVER)
    token = jnp.pad(token, ((0, 0), (0, missing)))
    total, chosen = jax.lax.top_k(total, count)
    token = jnp.take_along_axis(token, chosen, axis=1)
    if penalties is not None:
        total += jnp.take_along_axis(penalties, token, axis=1)
    return jnp.minimum(chosen // width, beam - 1), token, total


def top_k(values: Float[Array, "... V"], k: int) -> tuple[Float[Array, "... k"], Int[Array, "... k"]]:
    """Returns the result of `jax.lax.top_k`, including its order of ties. With many values it works in two stages:
    the k blocks with the highest maxima contain the k highest values, so only these blocks, and the values after the
    last block, are searched.
    """
    size = values.shape[-1]
    count = size // TOP_BLOCK
    if count <= 2 * k:
        best, indices = jax.lax.top_k(values, k)
        return best, indices
    blocks = values[..., : count * TOP_BLOCK].reshape(*values.shape[:-1], count, TOP_BLOCK)
    chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), k)[1], axis=-1)  # sorted, so that ties keep their order
    finalists = jnp.take_along_axis(blocks, chosen[..., None], axis=-2).reshape(*values.shape[:-1], -1)
    finalists = jnp.concatenate([finalists, values[..., count * TOP_BLOCK :]], axis=-1)
    best, indices = jax.lax.top_k(finalists, k)
    block = jnp.take_along_axis(chosen, jnp.minimum(indices // TOP_BLOCK, k - 1), axis=-1)
    inside = block * TOP_BLOCK + indices % TOP_BLOCK
    return best, jnp.where(indices < k * TOP_BLOCK, inside, indices - k * TOP_BLOCK + count * TOP_BLOCK)
