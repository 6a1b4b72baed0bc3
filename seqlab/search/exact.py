"""Exact search: the best of all answers, by depth-first branch and bound (Stahlberg & Byrne 2019).

A sum of log-probabilities only falls as its hypothesis grows. So a hypothesis that cannot come to beat the best
answer found so far, at whatever length is mildest to its sum, is not looked into any further.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from seqlab.search.branch_and_bound import Optima, Path, begin_path, branch_and_bound
from seqlab.search.ensemble import Ensemble
from seqlab.search.processors import NEVER, NO_OPTIONS
from seqlab.search.requests import ROWS, Request, RequestBatch, Shape, check_request, collate, shapes
from seqlab.search.rules import check_choice
from seqlab.system.errors import SeqlabError, at_least
from seqlab.types import Generator, Params

BUDGET = 10_000  # nodes of a sentence, after which it is given up

BLOCK = 256  # nodes of a sentence between looks at what is done

BYTES = 1 << 30  # most memory of a batch: every sentence keeps the model's state of each depth

SAME = 1e-5  # what beats an incumbent by less of it is the same but for rounding


class Rows(struct.PyTreeNode):
    """Sentences that are being searched: every leaf [B ...], so that some can leave."""

    memory: Any
    path: Path
    limit: jax.Array


class Solver(NamedTuple):
    """The jitted functions behind exact search.

    begin(params, asked, incumbent, length): rows before their first node, with room for `length` tokens.
    go_on(params, rows, steps, budget, alpha, word_penalty, start): rows some nodes later; arguments as those of
        `branch_and_bound`.
    join(parts, chosen): some of the rows of several, counted through.
    """

    begin: Callable[..., Rows]
    go_on: Callable[..., Rows]
    join: Callable[..., Rows]


@functools.lru_cache(maxsize=16)
def make_solver(model: Any, eos: int, rule: str) -> Solver:
    @functools.partial(jax.jit, static_argnames="length")
    def begin(params: Params, asked: RequestBatch, incumbent: jax.Array, length: int) -> Rows:
        capacity = asked.prompt.ids.shape[1] - 1 + length
        memory, state = model.apply(params, asked.inputs, asked.prompt, capacity, 1, method=type(model).start)
        first = asked.prompt.ids[:, -1]
        path = begin_path(state, first, asked.limit, incumbent, length=length, vocabulary=model.vocabulary)
        return Rows(memory, path, asked.limit)

    @functools.partial(jax.jit, static_argnames="start", donate_argnames="rows")
    def go_on(
        params: Params, rows: Rows, steps: Any, budget: Any, alpha: Any, word_penalty: Any, *, start: int
    ) -> Rows:
        def step(memory: Any, state: Any, token: jax.Array, t: jax.Array) -> tuple[jax.Array, Any]:
            memory, state = jax.tree.map(lambda x: x[None], (memory, state))
            logits, state = model.apply(params, memory, state, token[None, None], t, method=type(model).step)
            return logits[0, 0], jax.tree.map(lambda x: x[0], state)

        path = branch_and_bound(
            step, rows.memory, rows.path, start, rows.limit, steps, budget,
            eos=eos, alpha=alpha, word_penalty=word_penalty, rule=rule,
        )  # fmt: skip
        return rows.replace(path=path)

    def join(parts: Sequence[Rows], chosen: jax.Array) -> Rows:
        return jax.tree.map(lambda *x: jnp.concatenate(x)[chosen], *parts)

    return Solver(begin, go_on, jax.jit(join))


class Optimum(NamedTuple):
    """The best answer to a request: its ids with EOS, its score and its plain log-probability. Without ids the
    incumbent stands. If it is `decided` there is no better one; `nodes` is how many hypotheses were looked into.
    """

    ids: list[int]
    score: float
    log_prob: float
    decided: bool
    nodes: int


class Part(NamedTuple):
    """Sentences that are still open: the rows `where` are those of the requests `who`."""

    rows: Rows
    where: np.ndarray
    who: np.ndarray


def exact(
    model: Generator | Ensemble,
    params: Params,
    requests: Sequence[Request],
    *,
    eos: int,
    alpha: float,
    word_penalty: float = 0.0,
    length: str = "gnmt",
    incumbents: Sequence[float] | None = None,
    budget: int = BUDGET,
) -> list[Optimum]:
    """The best answer to every request by `rules.normalized`, in the order asked; scores and limits are as in
    beam search by the default rules.

    `incumbents` are scores to be beaten, such as those of beam search, by more than rounding. A sentence that is not
    decided after `budget` nodes is given up. Sentences that are done leave their places to others. Raises for what
    exact search does not do: ensembles, prefixes, phrases, least lengths.
    """
    check(model, requests, length, incumbents, budget)
    params = jax.device_put(params)
    solver = make_solver(model, eos, length)
    given = np.full(len(requests), NEVER) if incumbents is None else np.array(incumbents, float)
    to_beat = (given if incumbents is None else given + SAME * abs(given)).astype(np.float32)
    results: list[Any] = [None] * len(requests)

    def begin(shape: Shape, chosen: list[int]) -> Rows:
        size = size_of(len(chosen))
        asked = collate([requests[i] for i in chosen], size, shape)
        return solver.begin(params, asked, np.resize(to_beat[chosen], size), length=shape.answer)

    def join(parts: list[Part]) -> Part:
        """All sentences of the parts, in as few rows as hold them."""
        count = sum(len(part.who) for part in parts)
        if len(parts) == 1 and len(parts[0].rows.limit) == size_of(count):
            return parts[0]
        begins = np.cumsum([0, *(len(part.rows.limit) for part in parts)])
        where = np.concatenate([part.where + begin for part, begin in zip(parts, begins, strict=False)])
        rows = solver.join([part.rows for part in parts], np.resize(where, size_of(count)))
        return Part(rows, np.arange(count), np.concatenate([part.who for part in parts]))

    def keep(best: Optima, row: int, i: int) -> None:
        ids = best.tokens[row, : best.lengths[row]].tolist()
        score = float(best.scores[row] if ids else given[i])
        decided, nodes = bool(best.decided[row]), int(best.nodes[row])
        results[i] = Optimum(ids, score, float(best.log_probs[row]), decided, nodes)

    for shape, waiting in shapes(requests, getattr(model, "longest", None)).items():
        one = jax.eval_shape(lambda shape=shape, i=waiting[0]: jax.tree.leaves(begin(shape, [i])))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in one)
        most = max((rows for rows in ROWS if rows * size <= BYTES), default=1)
        left: list[Part] = []
        while waiting or left:
            room = most - sum(len(part.who) for part in left)
            new, waiting = waiting[:room], waiting[room:]
            if new:
                left.append(Part(begin(shape, new), np.arange(len(new)), np.array(new)))
            rows, where, who = join(left)
            rows = solver.go_on(params, rows, BLOCK, budget, alpha, word_penalty, start=shape.prompt - 1)
            best = jax.device_get(rows.path.best)
            done = best.decided[where] | (best.nodes[where] >= budget)
            for row, i in zip(where[done].tolist(), who[done].tolist(), strict=True):
                keep(best, row, i)
            left = [] if done.all() else [Part(rows, where[~done], who[~done])]
    return results


def size_of(count: int) -> int:
    """In how many rows so many sentences stand: few sizes, for each is compiled."""
    return next(rows for rows in ROWS if rows >= count)


def check(
    model: Generator | Ensemble,
    requests: Sequence[Request],
    length: str,
    incumbents: Sequence[float] | None,
    budget: int,
) -> None:
    """Raises for what cannot be had."""
    check_choice("length", length)
    at_least("budget", budget, 1)
    if isinstance(model, Ensemble):
        raise SeqlabError("exact search is of a single model: ask for it without an ensemble or a language model")
    if incumbents is not None and len(incumbents) != len(requests):
        raise SeqlabError(f"{len(requests)} requests need as many incumbents, not {len(incumbents)}")
    for i, request in enumerate(requests):
        where = f"line {request.number}" if request.number else f"request {i}"
        if request.prefix or request.phrases or request.least > 1:
            raise SeqlabError(f"{where}: exact search knows no prefixes, phrases or least lengths; take them out")
        check_request(where, request, model, 1, NO_OPTIONS)
