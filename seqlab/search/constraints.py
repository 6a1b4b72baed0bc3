"""Required phrases: beam search with dynamic beam allocation (Post & Vilar 2018), batched.

The bank of a hypothesis is the number of phrase tokens that it has written: the tokens of all complete phrases, and
those of the most advanced incomplete phrase. Each bank has its own places in the beam, so that hypotheses with more
phrase tokens, which are less likely, are not pruned. Each hypothesis is also extended by the next token of each
phrase, however unlikely. So the highest bank rises at every step, and after as many steps as there are phrase tokens,
at least one hypothesis has written all of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqlab.search.processors import NEVER

# `phrases` int [B P M]: the P phrases of each sentence, padded with -1. `progress` int [B K P]: the length of the
# longest beginning of a phrase that a hypothesis ends with; once the phrase is written, the length of the phrase.


def phrase_lengths(phrases: Int[Array, "B P M"]) -> Int[Array, "B P"]:
    return (phrases >= 0).sum(-1)


def all_written(phrases: Int[Array, "B P M"], progress: Int[Array, "B N P"]) -> Bool[Array, "B N"]:
    """Returns whether all phrases are written."""
    return (progress == phrase_lengths(phrases)[:, None]).all(-1)


def banks(phrases: Int[Array, "B P M"], progress: Int[Array, "B N P"]) -> Int[Array, "B N"]:
    written = progress == phrase_lengths(phrases)[:, None]
    return jnp.where(written, progress, 0).sum(-1) + jnp.where(written, 0, progress).max(-1)


def advance_phrases(
    phrases: Int[Array, "B P M"], progress: Int[Array, "B N P"], token: Int[Array, "B N"]
) -> Int[Array, "B N P"]:
    """Returns the progress after one more token: for each phrase, the length of the longest beginning that the
    hypothesis now ends with (Knuth, Morris & Pratt 1977).
    """
    longest = phrases.shape[-1]
    # Whether the first m tokens of a phrase equal the last m of its first q tokens.
    q, m, j = jnp.ogrid[: longest + 1, :longest, :longest]
    ends = phrases[:, :, jnp.clip(q - m + j, 0, longest - 1)] == phrases[:, :, None, None, :]
    border = (ends | (j >= m)).all(-1) & (m <= q)[..., 0]  # [B P Q M]
    rows, columns = jnp.arange(len(phrases))[:, None, None], jnp.arange(phrases.shape[1])
    continues = border[rows, columns, progress] & (phrases[:, None] == token[:, :, None, None])  # [B N P M]
    written = (continues * jnp.arange(1, longest + 1)).max(-1)
    full = phrase_lengths(phrases)[:, None]
    return jnp.where(progress == full, full, written)


def next_tokens(phrases: Int[Array, "B P M"], progress: Int[Array, "B K P"]) -> Int[Array, "B K P"]:
    """Returns the token that continues each phrase, or -1 for a phrase that is written."""
    ended = jnp.pad(phrases, ((0, 0), (0, 0), (0, 1)), constant_values=-1)
    return jnp.take_along_axis(ended[:, None], progress[..., None], axis=-1)[..., 0]


def constrained_continuations(
    phrases: Int[Array, "B P M"],
    progress: Int[Array, "B K P"],
    logits: Float[Array, "B K V"],
    normalizer: Float[Array, "B K 1"],
    log_probs: Float[Array, "B K"],
    eos: int,
    max_rank: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns 2K continuations of each sentence: parents, tokens, summed log-probabilities, each [B 2K], and the
    phrase progress after them. The first K end: only hypotheses that have written all phrases may end, and only at a
    rank below `max_rank`. The other K continue, best first within each bank.
    """
    batch, beam, vocabulary = logits.shape
    rows = jnp.arange(batch)[:, None]
    ending = log_probs + logits[..., eos] - normalizer[..., 0]
    ending = jnp.where(all_written(phrases, progress), ending, NEVER)
    best, token = jax.lax.top_k(logits.at[..., eos].set(NEVER), min(beam, vocabulary))  # [B K W]
    next_ids = next_tokens(phrases, progress)
    value = jnp.take_along_axis(logits, jnp.maximum(next_ids, 0), axis=-1)
    before = jnp.tril(jnp.ones((next_ids.shape[-1],) * 2, bool), -1)
    is_duplicate = (next_ids[..., None] == token[..., None, :]).any(-1)
    is_duplicate |= ((next_ids[..., None] == next_ids[..., None, :]) & before).any(-1)
    best = jnp.concatenate([best, jnp.where(is_duplicate | (next_ids < 0), 2 * NEVER, value)], axis=-1)
    width = best.shape[-1]
    token = jnp.concatenate([token, jnp.maximum(next_ids, 0)], axis=-1).reshape(batch, -1)
    total = jnp.maximum(log_probs[..., None] + best - normalizer, 2 * NEVER).reshape(batch, -1)
    total, order = jax.lax.top_k(total, beam * width)  # best first
    parents, token = order // width, jnp.take_along_axis(token, order, axis=1)
    after = advance_phrases(phrases, jnp.take_along_axis(progress, parents[..., None], axis=1), token)

    bank, tokens = banks(phrases, after), phrase_lengths(phrases).sum(-1)  # [B N], [B]
    members = bank[..., None] == jnp.arange(phrases[0].size + 1)  # [B N C]
    rank = jnp.take_along_axis(jnp.cumsum(members, axis=1), bank[..., None], axis=-1)[..., 0] - 1
    places = beam // (tokens + 1)[:, None]
    last = bank == tokens[:, None]
    allotted = (total > NEVER / 2) & (rank < jnp.where(last, beam - places * tokens[:, None], places))
    chosen = jnp.argsort(~allotted, axis=1, stable=True)[:, :beam]

    ending, parents_of_endings = jax.lax.top_k(ending, beam)
    progress = jnp.take_along_axis(progress, parents_of_endings[..., None], axis=1)  # unchanged by EOS
    better = (last[:, None] & (total[:, None] > ending[..., None])).sum(-1) + jnp.arange(beam)
    ending = jnp.where(better < max_rank, jnp.maximum(ending, 2 * NEVER), 2 * NEVER)
    halves = (
        (parents_of_endings, jnp.full_like(parents_of_endings, eos), ending, progress),
        (*(jnp.take_along_axis(x, chosen, axis=1) for x in (parents, token, total)), after[rows, chosen]),
    )
    parents, token, total, progress = (jnp.concatenate(pair, axis=1) for pair in zip(*halves, strict=True))
    return parents, token, total, progress
