"""Exact search: the best of all answers, by depth-first branch and bound (Stahlberg & Byrne 2019).

A sum of log-probabilities only falls as its hypothesis grows. So a hypothesis whose upper bound on the score does not
exceed the best answer so far is not expanded.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct

from seqlab.search.branch_and_bound import Path, begin_path, branch_and_bound
from seqlab.search.ensemble import Ensemble
from seqlab.search.processors import NEVER, make_processors
from seqlab.search.requests import BATCH_SIZES, Request, RequestBatch, Shape, check_request, collate, shapes
from seqlab.search.scheduler import Engine, Limits, RunningBatch, Scheduler, join_rows
from seqlab.search.settings import ScoreWeights, SearchSettings, StaticSettings
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Generator, Params

BUDGET = 10_000  # nodes of a sentence, after which it is given up
NODES_PER_CALL = 256  # nodes of a sentence between looks at what is done
# maximum memory of the running batch, and as much again for waiting ones: a sentence keeps the model's state of each
# depth
MAX_BATCH_BYTES = 1 << 29
SCORE_TOLERANCE = 1e-5  # an answer beats an incumbent by more than this share of it: less may be rounding


class ExactRows(struct.PyTreeNode):
    """Sentences that are being searched: every leaf [B ...], so that some can leave."""

    memory: Any
    path: Path
    limit: jax.Array

    def __len__(self) -> int:
        return self.limit.shape[0]


class Solver(NamedTuple):
    """The jitted functions behind exact search.

    begin(params, requests, incumbent, length): rows before their first node, with room for `length` tokens.
    advance(params, rows, steps, budget, weights, prompt_end): rows some nodes later; see `branch_and_bound`.
    join(parts, indices): some of the rows of several batches, by indices into their concatenation.
    """

    begin: Callable[..., ExactRows]
    advance: Callable[..., ExactRows]
    join: Callable[..., ExactRows]


@functools.lru_cache(maxsize=16)
def make_solver(model: Any, static: StaticSettings) -> Solver:
    @functools.partial(jax.jit, static_argnames="length")
    def begin(params: Params, requests: RequestBatch, incumbent: jax.Array, length: int) -> ExactRows:
        prompt = requests.prompt.ids
        capacity = prompt.shape[1] - 1 + length
        memory, state = model.apply(params, requests.inputs, requests.prompt, capacity, 1, method=type(model).start)
        first, limit = prompt[:, -1], requests.limit
        path = begin_path(state, first, limit, incumbent, length=length, vocabulary=model.vocabulary)
        return ExactRows(memory, path, limit)

    @functools.partial(jax.jit, static_argnames="prompt_end", donate_argnames="rows")
    def advance(
        params: Params, rows: ExactRows, steps: Any, budget: Any, weights: ScoreWeights, *, prompt_end: int
    ) -> ExactRows:
        def step(memory: Any, state: Any, token: jax.Array, t: jax.Array) -> tuple[jax.Array, Any]:
            memory, state = jax.tree.map(lambda x: x[None], (memory, state))
            logits, state = model.apply(params, memory, state, token[None, None], t, method=type(model).step)
            return logits[0, 0], jax.tree.map(lambda x: x[0], state)

        path = branch_and_bound(
            lambda memory, state, token, depth: step(memory, state, token, prompt_end + depth),
            rows.memory, rows.path, rows.limit, steps, budget, static, weights,
        )  # fmt: skip
        return rows.replace(path=path)

    return Solver(begin, advance, jax.jit(join_rows))


class Optimum(NamedTuple):
    """The best answer to a request: its ids with EOS, its score and its plain log-probability. Without ids the
    incumbent stays. If it is `decided` there is no better one; `nodes` is the number of expanded hypotheses.
    """

    ids: list[int]
    score: float
    log_prob: float
    decided: bool
    nodes: int


def exact_search(
    model: Generator | Ensemble,
    params: Params,
    requests: Sequence[Request],
    settings: SearchSettings,
    *,
    incumbents: Sequence[float] | None = None,
    budget: int = BUDGET,
) -> list[Optimum]:
    """The best answer to every request by `length_penalty.normalized_score`, in the order of `requests`. Scores and
    limits are as in beam search by the default rules.

    `incumbents` are scores to be beaten, such as those of beam search, by more than rounding. A sentence that is not
    decided after `budget` nodes is given up. Raises `SeqlabError` for what exact search does not support: ensembles,
    prefixes, phrases, minimum lengths, processors.
    """
    check_exact_search(model, requests, settings.static, incumbents, budget)
    params = jax.device_put(params)
    solver = make_solver(model, settings.static)
    scores = np.full(len(requests), NEVER) if incumbents is None else np.array(incumbents, float)
    to_beat = (scores if incumbents is None else scores + SCORE_TOLERANCE * abs(scores)).astype(np.float32)
    results: list[Any] = [None] * len(requests)

    def begin(shape: Shape, indices: list[int], size: int) -> ExactRows:
        batch = collate([requests[i] for i in indices], size, shape)
        return solver.begin(params, batch, np.resize(to_beat[indices], size), length=shape.text)

    def advance(shape: Shape, step: int, rows: ExactRows) -> tuple[ExactRows, int]:
        """The step stays 0: sentences may join others however many nodes they have had."""
        prompt_end = shape.prompt - 1
        return solver.advance(params, rows, NODES_PER_CALL, budget, settings.weights, prompt_end=prompt_end), step

    def is_done(rows: ExactRows) -> np.ndarray:
        best = rows.path.best
        return np.asarray(best.decided) | (np.asarray(best.nodes) >= budget)

    def store_results(batch: RunningBatch) -> None:
        best = jax.device_get(batch.rows.path.best)
        for row, i in zip(batch.row_indices, batch.request_indices, strict=True):
            ids = best.tokens[row, : best.lengths[row]].tolist()
            score = float(best.scores[row] if ids else scores[i])
            decided, nodes = bool(best.decided[row]), int(best.nodes[row])
            results[i] = Optimum(ids, score, float(best.log_probs[row]), decided, nodes)

    members = shapes(requests, model)
    sizes = {shape: bytes_of(begin, shape, indices[0]) for shape, indices in members.items()}
    limits = Limits(
        sizes=BATCH_SIZES,
        full_sizes={shape: max_batch_size(size) for shape, size in sizes.items()},
        cost=sizes.__getitem__,
        max_waiting_cost=MAX_BATCH_BYTES,
        in_flight=1,
    )
    Scheduler(Engine(begin, advance, solver.join, len, is_done, store_results), members, limits).run()
    return results


def max_batch_size(row_bytes: int) -> int:
    """The maximum number of rows of a batch; one, if none fits."""
    return max((count for count in BATCH_SIZES if count * row_bytes <= MAX_BATCH_BYTES), default=1)


def bytes_of(begin: Callable[[Shape, list[int], int], ExactRows], shape: Shape, index: int) -> int:
    """The memory of one row."""
    row = jax.eval_shape(lambda: jax.tree.leaves(begin(shape, [index], 1)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in row)


def check_exact_search(
    model: Generator | Ensemble,
    requests: Sequence[Request],
    static: StaticSettings,
    incumbents: Sequence[float] | None,
    budget: int,
) -> None:
    """Raises `SeqlabError` for what exact search does not support."""
    check_minimum("budget", budget, 1)
    if isinstance(model, Ensemble):
        raise SeqlabError("exact search takes a single model: leave out the ensemble and the language model")
    if incumbents is not None and len(incumbents) != len(requests):
        raise SeqlabError(f"{len(requests)} requests need as many incumbents, not {len(incumbents)}")
    if make_processors(static):
        raise SeqlabError(
            "exact search does not support forbidden tokens: leave out --forbid and --no-repeat, and use a preset "
            "that forbids none, such as seqlab"
        )
    for i, request in enumerate(requests):
        name = request.name(i)
        if request.prefix or request.phrases or request.minimum > 1:
            raise SeqlabError(
                f"{name}: exact search does not support prefixes, phrases or minimum lengths; leave them out"
            )
        check_request(name, request, model, static)
