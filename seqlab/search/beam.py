"""Beam search with any `Rules`, using only `step` and `reorder` of a model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqlab.config import LENGTH_PENALTIES, STOP_RULES
from seqlab.search.beam_state import Beam, BeamContext, BeamState
from seqlab.search.candidates import Candidates, propose
from seqlab.search.decoder import Decoder, Span
from seqlab.search.hypotheses import Hypotheses, merge
from seqlab.search.length_penalty import score_upper_bound
from seqlab.search.processors import NEVER, make_processors
from seqlab.search.requests import RequestBatch
from seqlab.search.settings import ScoreWeights, StaticSettings
from seqlab.system.checks import check_choice


class Endings(NamedTuple):
    """The result of a step: all finished hypotheses and their number [B]; which candidates finish, exist, or had
    ended before [B C]; and in which places of the beam a hypothesis has ended [B K].
    """

    finished: Hypotheses
    finished_count: jax.Array
    may_finish: jax.Array
    exists: jax.Array
    ended_before: jax.Array
    ended: jax.Array


def beam_search(
    decoder: Decoder,
    search_state: BeamState,
    requests: RequestBatch,
    span: Span,
    static: StaticSettings,
    weights: ScoreWeights,
) -> BeamState:
    """Runs the search for the steps of a span, or until all sentences are done.

    The hypotheses of row b have `requests.minimum[b]` to `requests.limit[b]` tokens, including EOS. Ties go to the
    hypothesis that is higher in the beam, then to the smaller token id.

    Hypotheses begin with the tokens of `requests.prefix`, in which -1 allows any token, and contain all
    `requests.phrases` (`search.constraints`). Each group of the beam subtracts `weights.diversity` from a token for
    each hypothesis of an earlier group that has chosen the token in the same step (Vijayakumar et al. 2018). This
    penalty affects the choice of tokens, but not the scores.
    """
    rules = static.rules
    check_choice("length", rules.length_penalty, LENGTH_PENALTIES)
    check_choice("stop", rules.stop, STOP_RULES)
    (batch, size), groups = search_state.beams[0].token.shape, len(search_state.beams)
    rows = jnp.arange(batch)[:, None]
    if rules.at_max_length == "end":
        requests = requests._replace(minimum=jnp.minimum(requests.minimum, requests.limit))
    context = BeamContext(rules, requests, static, weights, make_processors(static), decoder, span.max_length)

    def is_running(carry: tuple[jax.Array, BeamState]) -> jax.Array:
        i, current = carry
        return (i < span.end) & ~current.done.all()

    def advance(carry: tuple[jax.Array, BeamState]) -> tuple[jax.Array, BeamState]:
        i, current = carry
        token = jnp.concatenate([beam.token for beam in current.beams], axis=1)
        logits, state = decoder.step(current.state, token, span.prompt_end + i)  # [B K V]
        rewards = jnp.zeros((batch, size * groups)) if decoder.reward is None else decoder.reward(state)
        penalties = jnp.zeros((batch, logits.shape[-1])) if groups > 1 else None
        beams, parents = [], []
        for g, beam in enumerate(current.beams):
            columns = slice(g * size, (g + 1) * size)
            beam, chosen = extend(beam, logits[:, columns], rewards[:, columns], penalties, i, context)
            beams.append(beam)
            parents.append(chosen + g * size)
            if penalties is not None:
                cost = jnp.where(beam.log_probs > NEVER / 2, weights.diversity, 0.0)
                penalties = penalties.at[rows, beam.token].add(cost)
        return i + 1, BeamState(decoder.reorder(state, jnp.concatenate(parents, axis=1)), beams)

    return jax.lax.while_loop(is_running, advance, (jnp.int32(span.begin), search_state))[1]


def extend(
    old: Beam,
    logits: jax.Array,
    rewards: jax.Array,
    penalties: jax.Array | None,
    i: jax.Array,
    context: BeamContext,
) -> tuple[Beam, jax.Array]:
    """Returns the beam after one more token, and the parents [B K] of its hypotheses."""
    rules, size, limit = context.rules, old.token.shape[1], context.requests.limit
    rows, last = jnp.arange(len(limit))[:, None], i + 1 >= limit  # [B 1], [B]
    candidates = propose(old, logits, penalties, i, context)
    parents, token = candidates.parents, candidates.token
    tokens = jnp.take_along_axis(old.tokens, parents[..., None], axis=1).at[:, :, i].set(token)
    ends = token == context.static.eos
    if rules.at_max_length == "accept":
        ends |= last[:, None]
    endings = finish(old, candidates, tokens, ends, jnp.take_along_axis(rewards, parents, axis=1), i, context)
    best_ends = jnp.take_along_axis(ends, candidates.log_probs.argmax(-1, keepdims=True), axis=1)[:, 0]
    topped = old.topped | best_ends

    rank = jnp.arange(parents.shape[1])
    is_removed = jnp.zeros_like(ends)
    if rules.survivors == "refill":
        is_removed = ends | last[:, None]
    elif rules.survivors == "shrink":
        is_removed = ends | (rank >= size - old.count[:, None])
    order = jax.lax.top_k(-jnp.where(is_removed, rank + len(rank), rank), size)[1]  # [B K], sorted by rank
    log_probs = jnp.where(is_removed, NEVER, candidates.log_probs)[rows, order]
    done = is_done(endings, topped, token, log_probs.max(-1), i, context)
    new = Beam(
        token=token[rows, order],
        log_probs=log_probs,
        tokens=tokens[rows, order],
        finished=endings.finished,
        count=endings.finished_count,
        topped=topped,
        ended=endings.ended,
        done=old.done | done | last,
        phrase_progress=None if candidates.phrase_progress is None else candidates.phrase_progress[rows, order],
    )
    return new, parents[rows, order]


def finish(
    old: Beam,
    candidates: Candidates,
    tokens: jax.Array,
    ends: jax.Array,
    rewards: jax.Array,
    i: jax.Array,
    context: BeamContext,
) -> Endings:
    """Adds the candidates that end with token `i` (`ends` [B C]) to the finished hypotheses, by the rules."""
    rules, size, log_probs = context.rules, old.token.shape[1], candidates.log_probs
    exists = log_probs > NEVER / 2
    # Only written positions count: the others are zero, and the id of EOS may be 0.
    ended_before = ((tokens == context.static.eos) & (jnp.arange(tokens.shape[-1]) < i)).any(-1)
    ended, may_finish = old.ended, candidates.may_finish
    if rules.survivors == "stay":
        ended |= ends
        may_finish &= ~ended_before
    elif rules.survivors == "shrink":
        may_finish &= jnp.arange(ends.shape[1]) < size - old.count[:, None]
    may_finish &= ends & exists & ~old.done[:, None]
    if rules.keep == "first":
        may_finish &= old.count[:, None] + jnp.cumsum(may_finish, axis=-1) <= size
    scores = context.score(log_probs, i + 1) + rewards
    finished = merge(old.finished, tokens, log_probs, scores, may_finish, i + 1)
    count = old.count + may_finish.sum(-1)
    if rules.at_max_length == "rescue":
        last = i + 1 >= context.requests.limit
        lost = last[:, None] & (count[:, None] == 0) & exists & ~ends & ~old.done[:, None]
        lost &= candidates.may_be_lost
        finished = merge(finished, tokens, log_probs, log_probs + rewards, lost, i + 1)
    return Endings(finished, count, may_finish, exists, ended_before, ended)


def is_done(
    endings: Endings, topped: jax.Array, token: jax.Array, best: jax.Array, i: jax.Array, context: BeamContext
) -> jax.Array:
    """Returns which sentences are done [B] after token `i`, by the stop rule. `best` [B] is the highest sum of
    log-probabilities among the hypotheses that stay in the beam.
    """
    finished, count, size = endings.finished, endings.finished_count, endings.finished.scores.shape[1]
    match context.rules.stop:
        case "first":
            return endings.may_finish.any(-1)
        case "full":
            return count >= size
        case "top":
            return topped & (count >= min(context.static.nbest, size))
        case "empty":
            return best <= NEVER / 2
        case "slots":  # `stuck`: no hypothesis in the beam can finish; this does not change the result
            stuck = endings.ended_before | (token == context.static.eos) | ~endings.exists
            return (endings.ended | ~endings.exists).all(-1) | stuck.all(-1)
        case "bound":
            return (count >= size) & (finished.scores[:, -1] >= context.score(best, i + 1))
    worst = finished.scores[:, min(context.static.nbest, size) - 1]
    return worst >= score_upper_bound(best, i + 2, context.requests.limit, context.max_length, context.score)
