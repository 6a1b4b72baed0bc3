"""Beam search with length normalization, over nothing but `step` and `reorder`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from seqlab.errors import SeqlabError

NEVER = -1e9  # the score of a hypothesis that does not exist; finite, so that sums of it stay ordered

Step = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]  # (state, token [B K], t) -> logits, state
Reorder = Callable[[Any, jax.Array], Any]  # (state, parents [B K]) -> state


@struct.dataclass
class Hypotheses:
    """Finished hypotheses of each sentence, best first.

    `tokens` int [B K L] with EOS last and zeros behind it; `lengths` int [B K], EOS counted;
    `scores` float32 [B K], normalized by length; `log_probs` float32 [B K], the plain sums.
    A hypothesis that does not exist has length 0 and a score of `NEVER` or less.
    """

    tokens: jax.Array
    lengths: jax.Array
    scores: jax.Array
    log_probs: jax.Array


def length_penalty(length: Int[Array, "..."], alpha: Float[Array, ""] | float) -> Float[Array, "..."]:
    """`((5 + n) / 6) ** alpha`, EOS counted in n (Wu et al. 2016, equation 14)."""
    return ((5.0 + length) / 6.0) ** alpha


def beam_search(
    step: Step,
    reorder: Reorder,
    state: Any,
    first: Int[Array, "B"],
    start: int,
    limit: Int[Array, "B"],
    *,
    length: int,
    eos: int,
    beam: int,
    alpha: Float[Array, ""] | float,
    wanted: int = 1,
    stop: str = "optimal",
) -> Hypotheses:
    """The best finished continuations of `first`, the last prompt token, which stands at position `start`.

    - **Who may finish.** Of all continuations of a sentence's hypotheses the 2K best are looked at. An EOS
      among the K best finishes its hypothesis; the K best that are no EOS stay in the beam.
    - **The maximum length.** A row's hypotheses have at most `limit[b] <= length` tokens, EOS included; the
      last one must be EOS and is paid for, so every returned sentence is complete and its score is the model's.
    - **When to stop.** "optimal": once no hypothesis in the beam can still beat the `wanted` best finished
      ones, since log-probabilities only fall and the length penalty is largest at the limit: the result is
      that of running on to the limit. "first": at the first step at which anything finishes; with a beam of
      1 this is greedy search.

    Ties go to the hypothesis that stands higher in the beam, then to the smaller token id.
    """
    if stop not in ("optimal", "first"):
        raise SeqlabError(f"stop must be 'optimal' or 'first', not {stop!r}")
    batch = first.shape[0]
    rows = jnp.arange(batch)[:, None]

    def going(carry: Any) -> jax.Array:
        i, _, _, _, _, _, done = carry
        return (i < length) & ~done.all()

    def advance(carry: Any) -> Any:
        i, token, scores, tokens, state, finished, done = carry
        logits, state = step(state, token, start + i)  # [B K V]
        last = i + 1 >= limit  # [B]: nothing but EOS from here
        parents, token, scores = _continuations(logits, scores, last, eos, 2 * beam)  # [B 2K], best first
        candidates = jnp.take_along_axis(tokens, parents[..., None], axis=1).at[:, :, i].set(token)
        ends = token == eos

        may_finish = ends & (jnp.arange(2 * beam) < beam) & ~done[:, None]
        finished = _merge(finished, candidates, scores, may_finish, i + 1, alpha)

        scores = jnp.where(ends | last[:, None], NEVER, scores)
        scores, kept = jax.lax.top_k(scores, beam)  # [B K]
        parents, token, tokens = parents[rows, kept], token[rows, kept], candidates[rows, kept]

        if stop == "first":
            done = done | may_finish.any(-1)
        else:
            # The best a hypothesis of this score can come to: no more loss, and the mildest penalty ahead.
            ahead = jnp.where(alpha >= 0, limit, i + 2)
            hope = scores[:, 0] / length_penalty(ahead, alpha)
            done = finished.scores[:, wanted - 1] >= hope
        return i + 1, token, scores, tokens, reorder(state, parents), finished, done | last

    finished = Hypotheses(
        tokens=jnp.zeros((batch, beam, length), jnp.int32),
        lengths=jnp.zeros((batch, beam), jnp.int32),
        scores=jnp.full((batch, beam), 2 * NEVER),
        log_probs=jnp.full((batch, beam), 2 * NEVER),
    )
    scores = jnp.full((batch, beam), NEVER).at[:, 0].set(0.0)  # all hypotheses are alike at first: keep one
    token = jnp.repeat(first[:, None], beam, axis=1).astype(jnp.int32)
    tokens = jnp.zeros((batch, beam, length), jnp.int32)
    carry = (jnp.int32(0), token, scores, tokens, state, finished, limit <= 0)
    return jax.lax.while_loop(going, advance, carry)[5]


def _continuations(
    logits: Float[Array, "B K V"], scores: Float[Array, "B K"], last: jax.Array, eos: int, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` best continuations of a sentence: parents, tokens, summed log-probabilities, each [B count].

    No hypothesis can place more than K + 1 of its tokens where it matters, K in the beam and EOS, so the
    vocabulary is cut to those first, on logits as they are, and the log-sum-exp is subtracted from the few.
    """
    batch, beam, vocabulary = logits.shape
    normalizer = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    only_eos = jnp.where(jnp.arange(vocabulary) == eos, logits, NEVER)
    logits = jax.lax.cond(last.any(), lambda: jnp.where(last[:, None, None], only_eos, logits), lambda: logits)
    width = min(beam + 1, vocabulary)
    best, token = jax.lax.top_k(logits, width)  # [B K W]
    total = jnp.maximum(scores[..., None] + best - normalizer, 2 * NEVER).reshape(batch, -1)
    token = token.reshape(batch, -1)
    missing = max(count - total.shape[1], 0)  # a tiny vocabulary cannot fill the list
    total = jnp.pad(total, ((0, 0), (0, missing)), constant_values=2 * NEVER)
    token = jnp.pad(token, ((0, 0), (0, missing)))
    total, chosen = jax.lax.top_k(total, count)
    return jnp.minimum(chosen // width, beam - 1), jnp.take_along_axis(token, chosen, axis=1), total


def _merge(
    finished: Hypotheses,
    tokens: Int[Array, "B N L"],
    log_probs: Float[Array, "B N"],
    may_finish: jax.Array,
    length: jax.Array,
    alpha: Float[Array, ""] | float,
) -> Hypotheses:
    """The K best of what was finished and what finishes now, at `length` tokens."""
    exists = may_finish & (log_probs > NEVER / 2)
    scores = jnp.where(exists, log_probs / length_penalty(length, alpha), 2 * NEVER)
    _, kept = jax.lax.top_k(jnp.concatenate([finished.scores, scores], axis=1), finished.scores.shape[1])
    new = Hypotheses(
        tokens=tokens,
        lengths=jnp.where(exists, length, 0),
        scores=scores,
        log_probs=jnp.where(exists, log_probs, 2 * NEVER),
    )
    rows = jnp.arange(kept.shape[0])[:, None]
    return jax.tree.map(lambda old, fresh: jnp.concatenate([old, fresh], axis=1)[rows, kept], finished, new)
