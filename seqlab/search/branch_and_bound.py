"""Branch and bound over the hypotheses of one model: the jitted loop of exact search."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from seqlab.search.length_penalty import normalized_score, score_upper_bound
from seqlab.search.processors import NEVER, without_special
from seqlab.search.settings import ScoreWeights, StaticSettings
from seqlab.types import AnyArray

# for one sentence: (memory, state, token, depth) -> logits [V], state
SingleStep = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


@struct.dataclass
class Optima:
    """The best answer of each sentence so far.

    `tokens` int [B L], EOS last, then zeros; `lengths` int [B], including EOS, 0 if the incumbent is not beaten;
    `scores` and `log_probs` float32 [B]; `decided` bool [B], whether no better answer exists; `nodes` int [B], the
    number of model steps.
    """

    tokens: AnyArray
    lengths: AnyArray
    scores: AnyArray
    log_probs: AnyArray
    decided: AnyArray
    nodes: AnyArray


@struct.dataclass
class Path:
    """The path of each sentence from the root to the node that is expanded next, and the open nodes along it. A node
    at depth d is a hypothesis of d tokens.

    For each depth: the model's state before the node is expanded, leaves [B L ...]; the sums of log-probabilities of
    its children that do not end and are not yet visited [B L V], 2 NEVER for all other tokens; the highest of these
    sums [B L]; the token visited last [B L]. For the next node: its depth, last token and sum [B].
    """

    states: Any
    children: jax.Array
    highest: jax.Array
    tokens: jax.Array
    depth: jax.Array
    token: jax.Array
    log_prob: jax.Array
    best: Optima


def begin_path(
    state: Any,
    first: Int[Array, "B"],
    limit: Int[Array, "B"],
    incumbent: Float[Array, "B"],
    *,
    length: int,
    vocabulary: int,
) -> Path:
    """Returns the path before the root is expanded, with room for `length` tokens. `state` has one hypothesis per
    sentence.
    """
    batch = first.shape[0]
    zeros, empty = jnp.zeros(batch, jnp.int32), jnp.full(batch, 2 * NEVER, jnp.float32)
    tokens = jnp.zeros((batch, length), jnp.int32)
    return Path(
        states=jax.tree.map(lambda x: jnp.zeros((batch, length, *x.shape[1:]), x.dtype).at[:, 0].set(x), state),
        children=jnp.full((batch, length, vocabulary), 2 * NEVER, jnp.float32),
        highest=jnp.full((batch, length), 2 * NEVER, jnp.float32),
        tokens=tokens,
        depth=zeros,
        token=first.astype(jnp.int32),
        log_prob=jnp.zeros(batch),
        best=Optima(tokens, zeros, incumbent, empty, limit <= 0, zeros),
    )


class BoundContext(NamedTuple):
    """The values that all steps of a search share. `room` is the maximum depth."""

    step: SingleStep
    static: StaticSettings
    weights: ScoreWeights
    budget: Any
    room: int

    def score(self, log_probs: jax.Array, n: jax.Array) -> jax.Array:
        weights = self.weights
        return normalized_score(log_probs, n, weights.alpha, weights.word_penalty, self.static.rules.length_penalty)

    def is_open(self, best: Optima) -> jax.Array:
        return ~best.decided & (best.nodes < self.budget)


def branch_and_bound(
    step: SingleStep,
    memory: Any,
    path: Path,
    limit: Int[Array, "B"],
    steps: Int[Array, ""] | int,
    budget: Int[Array, ""] | int,
    static: StaticSettings,
    weights: ScoreWeights,
) -> Path:
    """Expands `steps` nodes of each sentence, or stops once each is decided or has expanded `budget` nodes.

    An answer has 1 to `limit[b]` tokens, the last of which is EOS. Children are visited best first. Ties go to the
    answer that is found first.
    """
    context = BoundContext(step, static, weights, budget, path.tokens.shape[1])

    def is_running(carry: tuple[jax.Array, Path]) -> jax.Array:
        i, current = carry
        return (i < steps) & context.is_open(current.best).any()

    def advance(carry: tuple[jax.Array, Path]) -> tuple[jax.Array, Path]:
        i, current = carry
        expanded = jax.vmap(lambda memory, limit, path: expand(memory, limit, path, context))(memory, limit, current)
        return i + 1, expanded

    return jax.lax.while_loop(is_running, advance, (jnp.int32(0), path))[1]


def expand(memory: Any, limit: jax.Array, path: Path, context: BoundContext) -> Path:
    """Expands one node of one sentence, and chooses the next: the deepest that may lead to a better answer."""
    is_open, depth, room = context.is_open(path.best), path.depth, context.room
    depths = jnp.arange(room)
    state = jax.tree.map(lambda x: x[depth], path.states)
    logits, state = context.step(memory, state, path.token, depth)
    log_probs = without_special(jax.nn.log_softmax(logits), context.static.special)
    sums = jnp.maximum(path.log_prob + log_probs, 2 * NEVER)  # [V]
    best = with_answer(path, sums[context.static.eos], is_open, context)

    unfinished = sums.at[context.static.eos].set(2 * NEVER)
    place = jnp.where(is_open, depth, room)  # writes beyond the end are dropped
    states = jax.tree.map(lambda x, y: x.at[place + 1].set(y, mode="drop"), path.states, state)
    children = path.children.at[place].set(unfinished, mode="drop")
    highest = path.highest.at[place].set(unfinished.max(), mode="drop")

    soonest, limits = depths[:, None] + 2, jnp.broadcast_to(limit, room)  # the child's token, and EOS
    bounds = score_upper_bound(highest, soonest, limits, room, context.score)
    worth = (depths <= depth) & (highest > NEVER / 2) & (bounds > best.scores)
    parent = jnp.where(worth, depths, -1).max()
    decided = parent < 0
    parent = jnp.maximum(parent, 0)
    token = children[parent].argmax()
    siblings = children[parent].at[token].set(2 * NEVER)
    place = jnp.where(is_open & ~decided, parent, room)
    return Path(
        states=states,
        children=children.at[place].set(siblings, mode="drop"),
        highest=highest.at[place].set(siblings.max(), mode="drop"),
        tokens=path.tokens.at[place].set(token, mode="drop"),
        depth=jnp.minimum(parent + 1, room - 1),
        token=token,
        log_prob=highest[parent],
        best=dataclasses.replace(best, decided=best.decided | (is_open & decided), nodes=best.nodes + is_open),
    )


def with_answer(path: Path, log_prob: jax.Array, is_open: jax.Array, context: BoundContext) -> Optima:
    """Returns the best answer, including the one that ends at this node with the sum `log_prob`."""
    n = path.depth + 1
    score = context.score(log_prob, n)
    better = is_open & (log_prob > NEVER / 2) & (score > path.best.scores)
    tokens = jnp.where(jnp.arange(context.room) < path.depth, path.tokens, 0).at[path.depth].set(context.static.eos)
    return dataclasses.replace(
        path.best,
        tokens=jnp.where(better, tokens, path.best.tokens),
        lengths=jnp.where(better, n, path.best.lengths),
        scores=jnp.where(better, score, path.best.scores),
        log_probs=jnp.where(better, log_prob, path.best.log_probs),
    )
