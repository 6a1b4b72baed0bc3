"""TODO search.branch_and_bound."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from seqlab.search.beam import hope
from seqlab.search.length_penalty import normalized
from seqlab.search.processors import NEVER
from seqlab.types import AnyArray

# of one sentence: (memory, state, token, t) -> logits [V], state
SingleStep = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


@struct.dataclass
class Optima:
    """The best answer of each sentence so far.

    `tokens` int [B L] with EOS last and zeros behind it; `lengths` int [B], EOS counted, 0: the incumbent stands;
    `scores` and `log_probs` float32 [B]; `decided` bool [B]: nothing is better; `nodes` int [B]: steps of the model.
    """

    tokens: AnyArray
    lengths: AnyArray
    scores: AnyArray
    log_probs: AnyArray
    decided: AnyArray
    nodes: AnyArray


@struct.dataclass
class Path:
    """Of each sentence: the nodes from the root to the one that is expanded next, and what is open beside them. A
    node at depth d is a hypothesis of d tokens.

    For each depth: the model's state before that node is expanded, leaves [B L ...]; the sums of those children of it
    that go on and were not visited yet [B L V], 2 NEVER for all others; the highest of these [B L]; the token visited
    last [B L]. Of the node that is next: depth, last token and sum [B].
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
    """Before the root is expanded, with room for `length` tokens; `state` has one hypothesis a sentence."""
    batch = first.shape[0]
    zeros, nothing = jnp.zeros(batch, jnp.int32), jnp.full(batch, 2 * NEVER, jnp.float32)
    tokens = jnp.zeros((batch, length), jnp.int32)
    return Path(
        states=jax.tree.map(lambda x: jnp.zeros((batch, length, *x.shape[1:]), x.dtype).at[:, 0].set(x), state),
        children=jnp.full((batch, length, vocabulary), 2 * NEVER, jnp.float32),
        highest=jnp.full((batch, length), 2 * NEVER, jnp.float32),
        tokens=tokens,
        depth=zeros,
        token=first.astype(jnp.int32),
        log_prob=jnp.zeros(batch),
        best=Optima(tokens, zeros, incumbent, nothing, limit <= 0, zeros),
    )


def branch_and_bound(
    step: SingleStep,
    memory: Any,
    path: Path,
    start: int,
    limit: Int[Array, "B"],
    steps: Int[Array, ""] | int,
    budget: Int[Array, ""] | int,
    *,
    eos: int,
    alpha: Float[Array, ""] | float,
    word_penalty: Float[Array, ""] | float,
    rule: str,
) -> Path:
    """The search gone on with for `steps` nodes of each sentence, or until each is decided or has had `budget` nodes.
    The last prompt token stands at position `start`.

    An answer has 1 to `limit[b]` tokens, of which the last is EOS. Children are visited best first; of answers with
    the same score the first one found stays.
    """
    room = path.tokens.shape[1]
    depths = jnp.arange(room)

    def score(log_probs: jax.Array, n: jax.Array) -> jax.Array:
        return normalized(log_probs, n, alpha, word_penalty, rule)

    def is_open(best: Optima) -> jax.Array:
        return ~best.decided & (best.nodes < budget)

    def expand(memory: Any, limit: jax.Array, now: Path) -> Path:
        """One node of one sentence, and the choice of the next: the deepest that may lead to something better."""
        goes_on, depth = is_open(now.best), now.depth
        state = jax.tree.map(lambda x: x[depth], now.states)
        logits, state = step(memory, state, now.token, start + depth)
        sums = jnp.maximum(now.log_prob + jax.nn.log_softmax(logits), 2 * NEVER)  # [V]
        best = answered(now, sums[eos], goes_on)

        going_on = sums.at[eos].set(2 * NEVER)
        here = jnp.where(goes_on, depth, room)  # what is written behind the end is dropped
        states = jax.tree.map(lambda x, y: x.at[here + 1].set(y, mode="drop"), now.states, state)
        children = now.children.at[here].set(going_on, mode="drop")
        highest = now.highest.at[here].set(going_on.max(), mode="drop")

        hopes = hope(highest, depths[:, None] + 2, jnp.broadcast_to(limit, room), room, score)  # EOS is to come too
        worth = (depths <= depth) & (highest > NEVER / 2) & (hopes > best.scores)
        parent = jnp.where(worth, depths, -1).max()
        decided = parent < 0
        parent = jnp.maximum(parent, 0)
        token = children[parent].argmax()
        rest = children[parent].at[token].set(2 * NEVER)
        there = jnp.where(goes_on & ~decided, parent, room)
        return Path(
            states=states,
            children=children.at[there].set(rest, mode="drop"),
            highest=highest.at[there].set(rest.max(), mode="drop"),
            tokens=now.tokens.at[there].set(token, mode="drop"),
            depth=jnp.minimum(parent + 1, room - 1),
            token=token,
            log_prob=highest[parent],
            best=dataclasses.replace(best, decided=best.decided | (goes_on & decided), nodes=best.nodes + goes_on),
        )

    def answered(now: Path, log_prob: jax.Array, goes_on: jax.Array) -> Optima:
        """The best answer, with the node's own: it ends here, for this sum."""
        n = now.depth + 1
        found = score(log_prob, n)
        better = goes_on & (log_prob > NEVER / 2) & (found > now.best.scores)
        tokens = jnp.where(depths < now.depth, now.tokens, 0).at[now.depth].set(eos)
        return dataclasses.replace(
            now.best,
            tokens=jnp.where(better, tokens, now.best.tokens),
            lengths=jnp.where(better, n, now.best.lengths),
            scores=jnp.where(better, found, now.best.scores),
            log_probs=jnp.where(better, log_prob, now.best.log_probs),
        )

    def going(carry: tuple[jax.Array, Path]) -> jax.Array:
        i, now = carry
        return (i < steps) & is_open(now.best).any()

    def advance(carry: tuple[jax.Array, Path]) -> tuple[jax.Array, Path]:
        i, now = carry
        return i + 1, jax.vmap(expand)(memory, limit, now)

    return jax.lax.while_loop(going, advance, (jnp.int32(0), path))[1]
