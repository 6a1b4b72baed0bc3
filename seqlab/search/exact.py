"""Exact search: the best of all answers, by depth-first branch and bound (Stahlberg & Byrne 2019).

The sum of log-probabilities of a hypothesis only decreases as it grows. So a hypothesis is not expanded if the upper
bound on its score does not exceed the score of the best answer so far.
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

BUDGET = 10_000  # default maximum number of nodes per sentence
NODES_PER_CALL = 256  # nodes per sentence between checks of which are done
# Maximum memory of the running batch, and of the waiting ones: a sentence stores the model's state at each depth.
MAX_BATCH_BYTES = 1 << 29
SCORE_TOLERANCE = 1e-5  # minimum relative improvement on an incumbent: less may be rounding


class ExactRows(struct.PyTreeNode):
    """Sentences that are being searched. Every leaf is [B ...], so that rows can be removed and joined."""

    memory: Any
    path: Path
    limit: jax.Array

    def __len__(self) -> int:
        return self.limit.shape[0]


class Solver(NamedTuple):
    """The jitted functions of exact search.

    begin(params, requests, incumbent, length): rows before their first node, with room for `length` tokens.
    advance(params, rows, steps, budget, weights, prompt_end): rows after up to `steps` more nodes; see
        `branch_and_bound`.
    join(parts, indices): rows of several batches, by indices into their concatenation.
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
    """The best answer to a request: its ids with EOS, its score and its log-probability. Without ids, the incumbent
    is not beaten. If it is `decided`, no better answer exists. `nodes` is the number of expanded hypotheses.
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
    """Returns the best answer to each request by `length_penalty.normalized_score`, in the order of `requests`.
    Scores and length limits are as in beam search with the default rules.

    `incumbents` are scores to beat by more than rounding, such as the scores of beam search. The search for a
    sentence ends undecided after `budget` nodes. Raises `SeqlabError` for features that exact search does not
    support: ensembles, prefixes, phrases, minimum lengths, processors.
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
        """Leaves the step at 0, so that sentences can be joined whatever their number of nodes."""
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
    """Returns the maximum number of rows in a batch, or 1 if no size fits."""
    return max((count for count in BATCH_SIZES if count * row_bytes <= MAX_BATCH_BYTES), default=1)


def bytes_of(begin: Callable[[Shape, list[int], int], ExactRows], shape: Shape, index: int) -> int:
    """Returns the memory of one row, in bytes."""
    row = jax.eval_shape(lambda: jax.tree.leaves(begin(shape, [index], 1)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in row)


def check_exact_search(
    model: Generator | Ensemble,
    requests: Sequence[Request],
    static: StaticSettings,
    incumbents: Sequence[float] | None,
    budget: int,
) -> None:
    """Raises `SeqlabError` for features that exact search does not support."""
    check_minimum("budget", budget, 1)
    if isinstance(model, Ensemble):
        raise SeqlabError("exact search supports only a single model: leave out the ensemble and the language model")
    if incumbents is not None and len(incumbents) != len(requests):
        raise SeqlabError(f"expected {len(requests)} incumbents, one per request, not {len(incumbents)}")
    if make_processors(static):
        raise SeqlabError(
            "exact search does not support forbidden tokens: leave out --forbid and --no-repeat, and use a preset "
            "without forbidden tokens, such as seqlab"
        )
    for i, request in enumerate(requests):
        name = request.name(i)
        if request.prefix or request.phrases or request.minimum > 1:
            raise SeqlabError(
                f"{name}: exact search does not support prefixes, phrases or minimum lengths: leave out --prefixes, "
                "--constraints, --min-length and --min-ratio"
            )
        check_request(name, request, model, static)
