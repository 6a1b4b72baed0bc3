"""Beam search, by any `Rules`, over nothing but `step` and `reorder`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from seqlab.search.processors import NEVER, History, Processor, process
from seqlab.search.rules import DEFAULT, Rules, check_choice, normalized

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


@struct.dataclass
class Beam:
    """What goes on: the hypotheses' last tokens and sums [B K], all their tokens [B K L], the model's state; what has
    finished, and how often [B]; for the stop rules that ask, whether the best continuation of a step ever ended [B],
    and whether anything ever ended in a place [B K]; whether a sentence is done [B].
    """

    token: jax.Array
    log_probs: jax.Array
    tokens: jax.Array
    state: Any
    finished: Hypotheses
    count: jax.Array
    topped: jax.Array
    ended: jax.Array
    done: jax.Array


def beam_search(
    step: Step,
    reorder: Reorder,
    state: Any,
    first: Int[Array, "B"],
    start: int,
    limit: Int[Array, "B"],
    least: Int[Array, "B"],
    *,
    length: int,
    eos: int,
    beam: int,
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float = 0.0,
    wanted: int = 1,
    rules: Rules = DEFAULT,
    processors: Sequence[Processor] = (),
    scored: bool = False,
) -> Hypotheses:
    """The best finished continuations of `first`, the last prompt token, which stands at position `start`.

    A row's hypotheses have `least[b]` to `limit[b] <= length` tokens, EOS included. Ties go to the hypothesis that
    stands higher in the beam, then to the smaller token id.
    """
    check_choice("length", rules.length)
    check_choice("stop", rules.stop)
    batch = first.shape[0]
    rows = jnp.arange(batch)[:, None]
    if rules.limit == "end":
        least = jnp.minimum(least, limit)
    looked_at = beam if rules.after in ("shrink", "stay") else 2 * beam
    rank = jnp.arange(looked_at)

    def score(log_probs: jax.Array, n: jax.Array) -> jax.Array:
        return normalized(log_probs, n, alpha, word_penalty, rules.length)

    def going(carry: Any) -> jax.Array:
        i, beams = carry
        return (i < length) & ~beams.done.all()

    def advance(carry: tuple[jax.Array, Beam]) -> tuple[jax.Array, Beam]:
        i, old = carry
        logits, state = step(old.state, old.token, start + i)  # [B K V]
        history = History(old.tokens, i)
        logits, normalizer = process(logits, history, processors, least, eos, rules.renormalize, scored)
        last = i + 1 >= limit  # [B]
        only_eos = last if rules.limit == "end" else jnp.zeros_like(last)
        width = beam + 1 if rules.finish == "beam" else 2 * beam
        parents, token, log_probs = _continuations(
            logits, normalizer, old.log_probs, only_eos, eos, looked_at, width
        )  # [B C], best first
        candidates = jnp.take_along_axis(old.tokens, parents[..., None], axis=1).at[:, :, i].set(token)
        exists = log_probs > NEVER / 2

        hit = token == eos
        if rules.limit == "accept":
            hit |= last[:, None]
        ended = old.ended
        if rules.after == "stay":
            ended |= hit | ~exists
            ends_once = ((candidates == eos).sum(-1) - (token == eos)) == 0
            may_finish = hit & ends_once
        elif rules.after == "shrink":
            may_finish = hit & (rank < beam - old.count[:, None])
        else:
            may_finish = hit & (rank < (beam if rules.finish == "beam" else 2 * beam))
        may_finish &= exists & ~old.done[:, None]
        if rules.keep == "first":
            may_finish &= old.count[:, None] + jnp.cumsum(may_finish, axis=-1) <= beam
        finished = _merge(old.finished, candidates, log_probs, score(log_probs, i + 1), may_finish, i + 1)
        count = old.count + may_finish.sum(-1)
        if rules.limit == "rescue":
            lost = last[:, None] & (count[:, None] == 0) & exists & ~hit & ~old.done[:, None]
            finished = _merge(finished, candidates, log_probs, log_probs, lost, i + 1)
        topped = old.topped | hit[:, 0]

        if rules.after == "refill":
            log_probs = jnp.where(hit | last[:, None], NEVER, log_probs)
        elif rules.after == "shrink":
            log_probs = jnp.where(hit | (rank >= beam - old.count[:, None]), NEVER, log_probs)
        log_probs, kept = jax.lax.top_k(log_probs, beam)  # [B K]
        parents, token, tokens = parents[rows, kept], token[rows, kept], candidates[rows, kept]

        best = log_probs[:, 0]
        if rules.stop == "first":
            done = may_finish.any(-1)
        elif rules.stop == "full":
            done = count >= beam
        elif rules.stop == "top":
            done = topped & (count >= wanted)
        elif rules.stop == "empty":
            done = best <= NEVER / 2
        elif rules.stop == "slots":
            done = ended.all(-1)
        elif rules.stop == "bound":
            done = (count >= beam) & (finished.scores[:, -1] >= score(best, i + 1))
        else:
            done = finished.scores[:, wanted - 1] >= _hope(best, i + 2, limit, length, score)
        beams = Beam(
            token, log_probs, tokens, reorder(state, parents), finished, count, topped, ended, old.done | done | last
        )
        return i + 1, beams

    nothing = jnp.full((batch, beam), 2 * NEVER)
    tokens = jnp.zeros((batch, beam, length), jnp.int32)
    finished = Hypotheses(tokens, jnp.zeros((batch, beam), jnp.int32), nothing, nothing)
    beams = Beam(
        token=jnp.repeat(first[:, None], beam, axis=1).astype(jnp.int32),
        log_probs=jnp.full((batch, beam), NEVER).at[:, 0].set(0.0),  # all hypotheses are alike at first: keep one
        tokens=tokens,
        state=state,
        finished=finished,
        count=jnp.zeros(batch, jnp.int32),
        topped=jnp.zeros(batch, bool),
        ended=jnp.zeros((batch, beam), bool),
        done=limit <= 0,
    )
    return jax.lax.while_loop(going, advance, (jnp.int32(0), beams))[1].finished


def _continuations(
    logits: Float[Array, "B K V"],
    normalizer: Float[Array, "B K 1"],
    log_probs: Float[Array, "B K"],
    only_eos: jax.Array,
    eos: int,
    count: int,
    width: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` best continuations of a sentence: parents, tokens, summed log-probabilities, each [B count].

    No hypothesis can place more than `width` of its tokens where it matters, so the vocabulary is cut to those first,
    on logits as they are, and the log-sum-exp is subtracted from the few. `only_eos` [B]: nothing but EOS.
    """
    batch, beam, vocabulary = logits.shape
    ends = jnp.where(jnp.arange(vocabulary) == eos, logits, NEVER)
    logits = jax.lax.cond(only_eos.any(), lambda: jnp.where(only_eos[:, None, None], ends, logits), lambda: logits)
    width = min(width, vocabulary)
    best, token = jax.lax.top_k(logits, width)  # [B K W]
    total = jnp.maximum(log_probs[..., None] + best - normalizer, 2 * NEVER).reshape(batch, -1)
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
    scores: Float[Array, "B N"],
    may_finish: jax.Array,
    length: jax.Array,
) -> Hypotheses:
    """The K best of what was finished and what finishes now, at `length` tokens."""
    new = Hypotheses(
        tokens=tokens,
        lengths=jnp.where(may_finish, length, 0),
        scores=jnp.where(may_finish, scores, 2 * NEVER),
        log_probs=jnp.where(may_finish, log_probs, 2 * NEVER),
    )
    _, kept = jax.lax.top_k(jnp.concatenate([finished.scores, new.scores], axis=1), finished.scores.shape[1])
    rows = jnp.arange(kept.shape[0])[:, None]
    return jax.tree.map(lambda old, fresh: jnp.concatenate([old, fresh], axis=1)[rows, kept], finished, new)


def _hope(
    log_probs: Float[Array, "B"],
    soonest: jax.Array,
    limit: Int[Array, "B"],
    length: int,
    score: Callable[[jax.Array, jax.Array], jax.Array],
) -> Float[Array, "B"]:
    """The best that a hypothesis of this sum can come to: at whatever length is mildest, and without more loss."""
    n = jnp.arange(1, length + 1)
    possible = (n >= soonest) & (n <= limit[:, None])
    return jnp.where(possible, score(log_probs[:, None], n), 2 * NEVER).max(-1)
