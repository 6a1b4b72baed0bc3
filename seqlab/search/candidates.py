"""The continuations that a step of beam search considers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.search.beam_state import Beam, BeamContext
from seqlab.search.constraints import constrained_continuations, whole
from seqlab.search.processors import NEVER, History, process

TOP_BLOCK = 64  # values that are compared as one block when the highest of very many are searched


class Candidates(NamedTuple):
    """The continuations that a step considers [B C], best first: parents, tokens and summed log-probabilities; the
    tokens of phrases that are then written [B C P]; which of them may finish, and which are lost at the maximum
    length.
    """

    parents: jax.Array
    token: jax.Array
    log_probs: jax.Array
    begun: jax.Array | None
    may_finish: jax.Array
    may_be_lost: jax.Array


def propose(
    old: Beam, logits: jax.Array, avoided: jax.Array | None, i: jax.Array, context: BeamContext
) -> Candidates:
    """The continuations by token `i`; prefixes, the maximum length and phrases may force it."""
    rules, requests, size, eos = context.rules, context.requests, old.token.shape[1], context.static.eos
    logits, normalizer = process(
        logits, History(old.tokens, i), context.processors, requests.minimum, eos, rules.renormalize,
        context.decoder.normalized,
    )  # fmt: skip
    last = i + 1 >= requests.limit
    only = jnp.where(last, eos, -1) if rules.limit == "end" else jnp.full(len(last), -1)
    if requests.prefix is not None:
        forced = forced_token(requests.prefix, i)
        only = jnp.where(forced >= 0, forced, only)
    logits = jax.lax.cond((only >= 0).any(), lambda: restricted(logits, only), lambda: logits)
    may_end = size if rules.finish == "beam" else 2 * size
    if requests.phrases is not None and old.begun is not None:
        parents, token, log_probs, begun = constrained_continuations(
            requests.phrases, old.begun, logits, normalizer, old.log_probs, eos, may_end
        )
        written = whole(requests.phrases, begun)
        return Candidates(parents, token, log_probs, begun, may_finish=written, may_be_lost=written)
    count = size if rules.after in ("shrink", "stay") else 2 * size
    width = size + 1 if rules.finish == "beam" else 2 * size
    parents, token, log_probs = best_continuations(logits, normalizer, old.log_probs, count, width, avoided)
    may_finish = jnp.broadcast_to(jnp.arange(count) < may_end, parents.shape)
    return Candidates(parents, token, log_probs, None, may_finish, may_be_lost=jnp.ones_like(may_finish))


def forced_token(prefix: Int[Array, "B L"], i: Int[Array, ""]) -> Int[Array, "B"]:
    """The `i`-th token of a prefix; -1 where any token may come."""
    return jnp.where(i < prefix.shape[1], prefix[:, jnp.minimum(i, prefix.shape[1] - 1)], -1)


def restricted(logits: Float[Array, "B K V"], only: Int[Array, "B"]) -> Float[Array, "B K V"]:
    """Logits where only one token may come, if there is one for the sentence."""
    barred = (only >= 0)[:, None] & (jnp.arange(logits.shape[-1]) != only[:, None])
    return jnp.where(barred[:, None], NEVER, logits)


def best_continuations(
    logits: Float[Array, "B K V"],
    normalizer: Float[Array, "B K 1"],
    log_probs: Float[Array, "B K"],
    count: int,
    width: int,
    avoided: Float[Array, "B V"] | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` best continuations of a sentence: parents, tokens, summed log-probabilities, each [B count]. What
    is `avoided` counts so much less in the choice.

    No hypothesis can place more than `width` of its tokens where it matters, so the vocabulary is cut to those first,
    on logits as they are, and the log-sum-exp is subtracted from the few.
    """
    batch, beam, vocabulary = logits.shape
    width = min(width, vocabulary)
    best, token = top_k(logits if avoided is None else logits - avoided[:, None], width)  # [B K W]
    total = jnp.maximum(log_probs[..., None] + best - normalizer, 2 * NEVER).reshape(batch, -1)
    token = token.reshape(batch, -1)
    missing = max(count - total.shape[1], 0)  # a tiny vocabulary cannot fill the list
    total = jnp.pad(total, ((0, 0), (0, missing)), constant_values=2 * NEVER)
    token = jnp.pad(token, ((0, 0), (0, missing)))
    total, chosen = jax.lax.top_k(total, count)
    token = jnp.take_along_axis(token, chosen, axis=1)
    if avoided is not None:
        total += jnp.take_along_axis(avoided, token, axis=1)
    return jnp.minimum(chosen // width, beam - 1), token, total


def top_k(values: Float[Array, "... V"], k: int) -> tuple[Float[Array, "... k"], Int[Array, "... k"]]:
    """`jax.lax.top_k`, ties included, in two stages where there are many values: the k blocks with the highest maxima
    hold the k highest, so that only these blocks, and what is left behind the last block, are looked through.
    """
    many = values.shape[-1]
    count = many // TOP_BLOCK
    if count <= 2 * k:
        best, at = jax.lax.top_k(values, k)
        return best, at
    blocks = values[..., : count * TOP_BLOCK].reshape(*values.shape[:-1], count, TOP_BLOCK)
    chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), k)[1], axis=-1)  # in order, so that ties are as they were
    looked_at = jnp.take_along_axis(blocks, chosen[..., None], axis=-2).reshape(*values.shape[:-1], -1)
    looked_at = jnp.concatenate([looked_at, values[..., count * TOP_BLOCK :]], axis=-1)
    best, at = jax.lax.top_k(looked_at, k)
    block = jnp.take_along_axis(chosen, jnp.minimum(at // TOP_BLOCK, k - 1), axis=-1)
    inside = block * TOP_BLOCK + at % TOP_BLOCK
    return best, jnp.where(at < k * TOP_BLOCK, inside, at - k * TOP_BLOCK + count * TOP_BLOCK)
