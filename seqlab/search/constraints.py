"""Phrases that must be written: beam search with dynamic beam allocation (Post & Vilar 2018), for a batch at once.

How much of its phrases a hypothesis has written is its bank: the tokens of all phrases that are whole, and of the one
that it is furthest in. Every bank has its places in the beam, so that what has written more, and is less likely for
it, stays; and for each hypothesis the next tokens of its phrases are looked at, however unlikely. So the furthest
bank that there is moves on at every step, and after as many steps as there are tokens some hypothesis has written all
of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqlab.search.processors import NEVER

# `phrases` int [B P M]: P phrases of a sentence, -1 behind their ends. `begun` int [B K P]: with how many tokens of a
# phrase a hypothesis ends; all of them, from then on, once it has written the phrase.


def sizes(phrases: Int[Array, "B P M"]) -> Int[Array, "B P"]:
    return (phrases >= 0).sum(-1)


def whole(phrases: Int[Array, "B P M"], begun: Int[Array, "B N P"]) -> Bool[Array, "B N"]:
    """Whether all phrases are written."""
    return (begun == sizes(phrases)[:, None]).all(-1)


def banks(phrases: Int[Array, "B P M"], begun: Int[Array, "B N P"]) -> Int[Array, "B N"]:
    written = begun == sizes(phrases)[:, None]
    return jnp.where(written, begun, 0).sum(-1) + jnp.where(written, 0, begun).max(-1)


def write(phrases: Int[Array, "B P M"], begun: Int[Array, "B N P"], token: Int[Array, "B N"]) -> Int[Array, "B N P"]:
    """What is begun after one more token: of each phrase the longest beginning that the hypothesis now ends with
    (Knuth, Morris & Pratt 1977).
    """
    longest = phrases.shape[-1]
    # Whether the first m tokens of a phrase are the last m of its first q.
    q, m, j = jnp.ogrid[: longest + 1, :longest, :longest]
    ends = phrases[:, :, jnp.clip(q - m + j, 0, longest - 1)] == phrases[:, :, None, None, :]
    border = (ends | (j >= m)).all(-1) & (m <= q)[..., 0]  # [B P Q M]
    rows, columns = jnp.arange(len(phrases))[:, None, None], jnp.arange(phrases.shape[1])
    continues = border[rows, columns, begun] & (phrases[:, None] == token[:, :, None, None])  # [B N P M]
    written = (continues * jnp.arange(1, longest + 1)).max(-1)
    full = sizes(phrases)[:, None]
    return jnp.where(begun == full, full, written)


def next_tokens(phrases: Int[Array, "B P M"], begun: Int[Array, "B K P"]) -> Int[Array, "B K P"]:
    """The token that takes each phrase further; -1 for one that is written."""
    ended = jnp.pad(phrases, ((0, 0), (0, 0), (0, 1)), constant_values=-1)
    return jnp.take_along_axis(ended[:, None], begun[..., None], axis=-1)[..., 0]


def constrained_continuations(
    phrases: Int[Array, "B P M"],
    begun: Int[Array, "B K P"],
    logits: Float[Array, "B K V"],
    normalizer: Float[Array, "B K 1"],
    log_probs: Float[Array, "B K"],
    eos: int,
    max_rank: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """2 K continuations of a sentence: parents, tokens, summed log-probabilities, each [B 2K], what is begun then.
    First the K that end, of hypotheses that have written all phrases, as far as their rank among all such is below
    `max_rank`; behind them the K that go on, each bank's best first.
    """
    batch, beam, vocabulary = logits.shape
    rows = jnp.arange(batch)[:, None]
    ending = log_probs + logits[..., eos] - normalizer[..., 0]
    ending = jnp.where(whole(phrases, begun), ending, NEVER)
    best, token = jax.lax.top_k(logits.at[..., eos].set(NEVER), min(beam, vocabulary))  # [B K W]
    further = next_tokens(phrases, begun)
    value = jnp.take_along_axis(logits, jnp.maximum(further, 0), axis=-1)
    before = jnp.tril(jnp.ones((further.shape[-1],) * 2, bool), -1)
    twice = (further[..., None] == token[..., None, :]).any(-1)
    twice |= ((further[..., None] == further[..., None, :]) & before).any(-1)
    best = jnp.concatenate([best, jnp.where(twice | (further < 0), 2 * NEVER, value)], axis=-1)
    width = best.shape[-1]
    token = jnp.concatenate([token, jnp.maximum(further, 0)], axis=-1).reshape(batch, -1)
    total = jnp.maximum(log_probs[..., None] + best - normalizer, 2 * NEVER).reshape(batch, -1)
    total, order = jax.lax.top_k(total, beam * width)  # best first
    parents, token = order // width, jnp.take_along_axis(token, order, axis=1)
    after = write(phrases, jnp.take_along_axis(begun, parents[..., None], axis=1), token)

    bank, tokens = banks(phrases, after), sizes(phrases).sum(-1)  # [B N], [B]
    members = bank[..., None] == jnp.arange(phrases[0].size + 1)  # [B N C]
    rank = jnp.take_along_axis(jnp.cumsum(members, axis=1), bank[..., None], axis=-1)[..., 0] - 1
    places = beam // (tokens + 1)[:, None]
    last = bank == tokens[:, None]
    allotted = (total > NEVER / 2) & (rank < jnp.where(last, beam - places * tokens[:, None], places))
    chosen = jnp.argsort(~allotted, axis=1, stable=True)[:, :beam]

    ending, ended = jax.lax.top_k(ending, beam)
    begun = jnp.take_along_axis(begun, ended[..., None], axis=1)  # of those that end, as it was
    better = (last[:, None] & (total[:, None] > ending[..., None])).sum(-1) + jnp.arange(beam)
    ending = jnp.where(better < max_rank, jnp.maximum(ending, 2 * NEVER), 2 * NEVER)
    halves = (
        (ended, jnp.full_like(ended, eos), ending, begun),
        (*(jnp.take_along_axis(x, chosen, axis=1) for x in (parents, token, total)), after[rows, chosen]),
    )
    parents, token, total, begun = (jnp.concatenate(pair, axis=1) for pair in zip(*halves, strict=True))
    return parents, token, total, begun
