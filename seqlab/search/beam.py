"""Beam search, by any `Rules`, over nothing but `step` and `reorder`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from seqlab.search.constraints import constrained_continuations, whole
from seqlab.search.length_penalty import normalized
from seqlab.search.processors import NEVER, History, Processor, process
from seqlab.search.rules import DEFAULT, Rules, check_choice

TOP_BLOCK = 64  # values that are looked at together for the highest of very many

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
    """What goes on: the hypotheses' last tokens and sums [B K], all their tokens [B K L]; what has finished, and how
    often [B]; for the stop rules that ask, whether the best continuation of a step ever ended [B], and whether
    anything ever ended in a place [B K]; whether a sentence is done [B]; of phrases, what is begun [B K P].
    """

    token: jax.Array
    log_probs: jax.Array
    tokens: jax.Array
    finished: Hypotheses
    count: jax.Array
    topped: jax.Array
    ended: jax.Array
    done: jax.Array
    begun: jax.Array | None


@struct.dataclass
class Search:
    """Where a search has come to: the model's state of all hypotheses, and the beam, or its groups."""

    state: Any
    beams: list[Beam]

    @property
    def done(self) -> jax.Array:
        """Which sentences are done [B]."""
        return jnp.stack([one.done for one in self.beams]).all(0)

    def longer(self, state: Any, more: int) -> "Search":
        """With room for `more` tokens, and a state that has it too."""

        def padded(tokens: jax.Array) -> jax.Array:
            return jnp.pad(tokens, ((0, 0), (0, 0), (0, more)))

        beams = [
            dataclasses.replace(
                one,
                tokens=padded(one.tokens),
                finished=dataclasses.replace(one.finished, tokens=padded(one.finished.tokens)),
            )
            for one in self.beams
        ]
        return Search(state, beams)

    def results(self) -> Hypotheses:
        """The best finished hypotheses so far, best first."""
        if len(self.beams) == 1:
            return self.beams[0].finished
        every = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *[one.finished for one in self.beams])
        return best_first(every, every.scores.shape[1])


def begin_beam(
    state: Any,
    first: Int[Array, "B"],
    limit: Int[Array, "B"],
    phrases: Int[Array, "B P M"] | None = None,
    *,
    length: int,
    beam: int,
    groups: int = 1,
) -> Search:
    """A search before its first step, with room for `length` tokens."""
    batch, size = first.shape[0], beam // groups
    nothing = jnp.full((batch, size), 2 * NEVER, jnp.float32)
    tokens = jnp.zeros((batch, size, length), jnp.int32)
    one = Beam(
        token=jnp.repeat(first[:, None], size, axis=1).astype(jnp.int32),
        # All hypotheses are alike at first: keep one.
        log_probs=jnp.full((batch, size), NEVER, jnp.float32).at[:, 0].set(0.0),
        tokens=tokens,
        finished=Hypotheses(tokens, jnp.zeros((batch, size), jnp.int32), nothing, nothing),
        count=jnp.zeros(batch, jnp.int32),
        topped=jnp.zeros(batch, bool),
        ended=jnp.zeros((batch, size), bool),
        done=limit <= 0,
        begun=None if phrases is None else jnp.zeros((batch, size, phrases.shape[1]), jnp.int32),
    )
    return Search(state, [one] * groups)


def beam_search(
    step: Step,
    reorder: Reorder,
    search: Search,
    begin: Int[Array, ""] | int,
    end: Int[Array, ""] | int,
    start: int,
    limit: Int[Array, "B"],
    least: Int[Array, "B"],
    *,
    most: int,
    eos: int,
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float = 0.0,
    wanted: int = 1,
    rules: Rules = DEFAULT,
    processors: Sequence[Processor] = (),
    scored: bool = False,
    prefix: Int[Array, "B L"] | None = None,
    phrases: Int[Array, "B P M"] | None = None,
    diversity: Float[Array, ""] | float = 0.0,
    reward: Callable[[Any], Float[Array, "B K"]] | None = None,
) -> Search:
    """The search gone on with from its step `begin` to its step `end`, or until all sentences are done. The last
    prompt token stands at position `start`.

    A row's hypotheses have `least[b]` to `limit[b] <= most` tokens, EOS included. Ties go to the hypothesis that
    stands higher in the beam, then to the smaller token id.

    `prefix` is what they begin with, -1 where they are free. `phrases` must be in them (`search.constraints`). The
    beam may be of `groups`, each of which loses `diversity` for a token as often as the groups before it have chosen
    that token in the same step (Vijayakumar et al. 2018); this hinders a choice, and no score. `reward` is of a
    state, at most 0, and added to the score of what ends there.
    """
    check_choice("length", rules.length)
    check_choice("stop", rules.stop)
    (batch, size), groups = search.beams[0].token.shape, len(search.beams)
    rows = jnp.arange(batch)[:, None]
    if rules.limit == "end":
        least = jnp.minimum(least, limit)
    looked_at = size if rules.after in ("shrink", "stay") else 2 * size
    may_end = size if rules.finish == "beam" else 2 * size
    rank = jnp.arange(looked_at)

    def score(log_probs: jax.Array, n: jax.Array) -> jax.Array:
        return normalized(log_probs, n, alpha, word_penalty, rules.length)

    def going(carry: tuple[jax.Array, Search]) -> jax.Array:
        i, now = carry
        return (i < end) & ~now.done.all()

    def advance(carry: tuple[jax.Array, Search]) -> tuple[jax.Array, Search]:
        i, now = carry
        token = jnp.concatenate([one.token for one in now.beams], axis=1)
        logits, state = step(now.state, token, start + i)  # [B K V]
        rewards = jnp.zeros((batch, size * groups)) if reward is None else reward(state)
        avoided = jnp.zeros((batch, logits.shape[-1])) if groups > 1 else None
        after, parents = [], []
        for g, one in enumerate(now.beams):
            mine = slice(g * size, (g + 1) * size)
            one, chosen = extend(one, logits[:, mine], rewards[:, mine], i, avoided)
            after.append(one)
            parents.append(chosen + g * size)
            if avoided is not None:
                avoided = avoided.at[rows, one.token].add(jnp.where(one.log_probs > NEVER / 2, diversity, 0.0))
        return i + 1, Search(reorder(state, jnp.concatenate(parents, axis=1)), after)

    def extend(
        old: Beam, logits: jax.Array, rewards: jax.Array, i: jax.Array, avoided: jax.Array | None
    ) -> tuple[Beam, jax.Array]:
        """The beam after one more token, and the parents [B K] of what goes on."""
        history = History(old.tokens, i)
        logits, normalizer = process(logits, history, processors, least, eos, rules.renormalize, scored)
        last = i + 1 >= limit  # [B]
        only = jnp.where(last, eos, -1) if rules.limit == "end" else jnp.full(batch, -1)
        if prefix is not None:
            told = told_now(prefix, i)
            only = jnp.where(told >= 0, told, only)
        logits = jax.lax.cond((only >= 0).any(), lambda: _restricted(logits, only), lambda: logits)
        if phrases is None or old.begun is None:
            width = size + 1 if rules.finish == "beam" else 2 * size
            parents, token, log_probs = _continuations(
                logits, normalizer, old.log_probs, looked_at, width, avoided
            )  # [B C], best first
            begun, may_finish = None, jnp.broadcast_to(rank < may_end, parents.shape)
            may_be_lost = jnp.ones_like(may_finish)
        else:
            parents, token, log_probs, begun = constrained_continuations(
                phrases, old.begun, logits, normalizer, old.log_probs, eos, may_end
            )
            may_finish = may_be_lost = whole(phrases, begun)
        candidates = jnp.take_along_axis(old.tokens, parents[..., None], axis=1).at[:, :, i].set(token)
        exists = log_probs > NEVER / 2

        hit = token == eos
        if rules.limit == "accept":
            hit |= last[:, None]
        # Whether it had ended before. Behind what is written stand zeros, and EOS may be 0.
        over = ((candidates == eos) & (jnp.arange(candidates.shape[-1]) < i)).any(-1)
        ended = old.ended
        if rules.after == "stay":
            ended |= hit | ~exists
            may_finish &= ~over
        elif rules.after == "shrink":
            may_finish &= rank < size - old.count[:, None]
        may_finish &= hit & exists & ~old.done[:, None]
        if rules.keep == "first":
            may_finish &= old.count[:, None] + jnp.cumsum(may_finish, axis=-1) <= size
        rewards = jnp.take_along_axis(rewards, parents, axis=1)
        finished = _merge(old.finished, candidates, log_probs, score(log_probs, i + 1) + rewards, may_finish, i + 1)
        count = old.count + may_finish.sum(-1)
        if rules.limit == "rescue":
            lost = may_be_lost & last[:, None] & (count[:, None] == 0) & exists & ~hit & ~old.done[:, None]
            finished = _merge(finished, candidates, log_probs, log_probs + rewards, lost, i + 1)
        topped = old.topped | jnp.take_along_axis(hit, log_probs.argmax(-1, keepdims=True), axis=1)[:, 0]

        leaves = jnp.zeros_like(hit)
        if rules.after == "refill":
            leaves = hit | last[:, None]
        elif rules.after == "shrink":
            leaves = hit | (rank >= size - old.count[:, None])
        kept = jax.lax.top_k(-jnp.where(leaves, rank + looked_at, rank), size)[1]  # [B K], in the order they stand in
        log_probs = jnp.where(leaves, NEVER, log_probs)[rows, kept]
        best = log_probs.max(-1)
        if rules.stop == "first":
            done = may_finish.any(-1)
        elif rules.stop == "full":
            done = count >= size
        elif rules.stop == "top":
            done = topped & (count >= min(wanted, size))
        elif rules.stop == "empty":
            done = best <= NEVER / 2
        elif rules.stop == "slots":  # or nothing that goes on could finish, which changes no result
            done = ended.all(-1) | (over | (token == eos) | ~exists).all(-1)
        elif rules.stop == "bound":
            done = (count >= size) & (finished.scores[:, -1] >= score(best, i + 1))
        else:
            worst = finished.scores[:, min(wanted, size) - 1]
            done = worst >= hope(best, i + 2, limit, most, score)
        new = Beam(
            token=token[rows, kept],
            log_probs=log_probs,
            tokens=candidates[rows, kept],
            finished=finished,
            count=count,
            topped=topped,
            ended=ended,
            done=old.done | done | last,
            begun=None if begun is None else begun[rows, kept],
        )
        return new, parents[rows, kept]

    return jax.lax.while_loop(going, advance, (jnp.int32(begin), search))[1]


def told_now(prefix: Int[Array, "B L"], i: Int[Array, ""]) -> Int[Array, "B"]:
    """The token that must come as the `i`-th; -1 where any may."""
    return jnp.where(i < prefix.shape[1], prefix[:, jnp.minimum(i, prefix.shape[1] - 1)], -1)


def _restricted(logits: Float[Array, "B K V"], only: Int[Array, "B"]) -> Float[Array, "B K V"]:
    """Logits where only one token may come, if there is one for the sentence."""
    barred = (only >= 0)[:, None] & (jnp.arange(logits.shape[-1]) != only[:, None])
    return jnp.where(barred[:, None], NEVER, logits)


def _continuations(
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
    both = jax.tree.map(lambda old, fresh: jnp.concatenate([old, fresh], axis=1), finished, new)
    return best_first(both, finished.scores.shape[1])


def best_first(hypotheses: Hypotheses, count: int) -> Hypotheses:
    """The `count` best, best first; of equals, those that stood first."""
    _, kept = jax.lax.top_k(hypotheses.scores, count)
    rows = jnp.arange(kept.shape[0])[:, None]
    return jax.tree.map(lambda x: x[rows, kept], hypotheses)


def hope(
    log_probs: Float[Array, "B"],
    soonest: jax.Array,
    limit: Int[Array, "B"],
    most: int,
    score: Callable[[jax.Array, jax.Array], jax.Array],
) -> Float[Array, "B"]:
    """The best that a hypothesis of this sum can come to, without more loss: at whatever length is mildest, from the
    `soonest` (a scalar, or [B 1]) to its limit.
    """
    n = jnp.arange(1, most + 1)
    possible = (n >= soonest) & (n <= limit[:, None])
    return jnp.where(possible, score(log_probs[:, None], n), 2 * NEVER).max(-1)
