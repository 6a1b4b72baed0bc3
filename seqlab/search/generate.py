"""From requests to hypotheses: each shape is compiled once, results come in the order asked.

Sentences are decoded in batches, some steps at a time. Those that are done leave, and the others go on beside
sentences of other batches that have come as far, so that batches are full until there is nothing left to fill them.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seqlab.search.ensemble import Ensemble, has_attention
from seqlab.search.processors import NEVER, NO_OPTIONS, Options
from seqlab.search.requests import (
    POSITIONS,
    ROWS,
    Request,
    Shape,
    check_request,
    collate,
    most_rows,
    positions_of,
    shapes,
)
from seqlab.search.rules import DEFAULT, Rules
from seqlab.search.searcher import DEFAULT_WEIGHTS, Method, Rows, Weights, make_mesh, make_searcher
from seqlab.system.errors import SeqlabError
from seqlab.types import Generator, Params

BLOCK = 4  # steps between looks at what is done
ROOM = 16  # tokens that there is room for at first; then twice as many, and so on
WAITING = 4  # batches' worth of positions that may wait for others to go on with


class Result(NamedTuple):
    """Generated ids with EOS; the score normalized by length; the plain log-probability."""

    ids: list[int]
    score: float
    log_prob: float


class Part(NamedTuple):
    """Sentences of one shape that have come equally far: the rows `where` are those of the requests `who`."""

    rows: Rows
    where: np.ndarray
    who: np.ndarray

    def only(self, chosen: Any) -> "Part":
        return self._replace(where=self.where[chosen], who=self.who[chosen])


def check(
    model: Generator | Ensemble,
    requests: Sequence[Request],
    beam: int,
    wanted: int,
    weights: Weights,
    rules: Rules | None,
    options: Options,
    groups: int,
    seed: int | None,
) -> None:
    """Raises for what cannot be had."""
    if not 1 <= wanted <= beam:
        raise SeqlabError(f"a beam of {beam} holds 1 to {beam} hypotheses a sentence, not {wanted}")
    if beam % groups:
        raise SeqlabError(f"{groups} groups do not divide a beam of {beam}")
    if weights.coverage and not has_attention(model):
        raise SeqlabError("the coverage penalty is of models that attend to a source, and this one does not")
    searching = rules is not None and seed is None
    if weights.coverage and not searching:
        raise SeqlabError("the coverage penalty ranks the hypotheses of a beam: --beam 2 or more, and no samples")
    for i, request in enumerate(requests):
        check_request(f"line {request.number}" if request.number else f"request {i}", request, model, beam, options)
        if request.phrases and (not searching or groups > 1 or (rules or DEFAULT).after != "refill"):
            raise SeqlabError(
                "phrases that must be written need a beam of 2 or more, without groups or --sample, and a preset "
                "that fills it up again"
            )


def generate(
    model: Generator | Ensemble,
    params: Params,
    requests: Sequence[Request],
    *,
    eos: int,
    beam: int = 5,
    wanted: int = 1,
    weights: Weights = DEFAULT_WEIGHTS,
    rules: Rules | None = None,
    options: Options = NO_OPTIONS,
    groups: int = 1,
    seed: int | None = None,
    batch_tokens: int = POSITIONS,
    devices: Sequence[Any] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> list[list[Result]]:
    """The `wanted` best results of every request, best first (fewer where fewer exist), in the order of `requests`.

    Without `rules` search is greedy if `beam` is 1, else a beam search by the default ones. With a `seed` there is no
    search: `beam` samples are drawn, by the options. A batch has at most `batch_tokens` positions of sources and
    hypotheses on each of the `devices`, which share it; all of this process, if none are named.
    `progress` is told how many sentences each finished batch held. Raises for what cannot be had.
    """
    devices = tuple(devices or jax.local_devices())
    rules = rules or (None if beam == 1 else DEFAULT)
    check(model, requests, beam, wanted, weights, rules, options, groups, seed)
    method = Method(beam, wanted, rules, options, seed is not None, groups, bool(weights.coverage))
    mesh = make_mesh(devices)
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    searcher = make_searcher(model, eos, method, mesh)
    results: list[list[Result]] = [[] for _ in requests]
    members = shapes(requests, getattr(model, "longest", None))
    full = {shape: most_rows(shape, beam, batch_tokens) * len(devices) for shape in members}
    fresh = (
        (shape, some[at : at + full[shape]])
        for shape, some in members.items()
        for at in range(0, len(some), full[shape])
    )
    waiting: dict[tuple[Shape, int], Part] = {}  # by how many steps they have behind them
    ready: collections.deque[tuple[Shape, int, Part]] = collections.deque()
    running: collections.deque[tuple[Shape, int, Part]] = collections.deque()

    def size_of(count: int) -> int:
        return next(rows * len(devices) for rows in ROWS if rows * len(devices) >= count)

    def begin(shape: Shape, chosen: Sequence[int]) -> Part:
        asked = collate([requests[i] for i in chosen], size_of(len(chosen)), shape)
        return Part(
            searcher.begin(params, asked, length=room_for(0, shape)), np.arange(len(chosen)), np.array(chosen)
        )

    def go_on(shape: Shape, at: int, part: Part) -> None:
        end = min(at + BLOCK, shape.answer)
        rows, more = part.rows, room_for(end, shape) - room_for(at, shape)
        if more:
            rows = searcher.grow(rows, more=more)
        rows = searcher.go_on(params, rows, at, end, weights, seed or 0, start=shape.prompt - 1, most=shape.answer)
        running.append((shape, end, part._replace(rows=rows)))

    def join(parts: list[Part], count: int) -> Part:
        """The first `count` sentences of the parts, in as few rows as hold them."""
        size, begins = size_of(count), np.cumsum([0, *(len(part.rows) for part in parts)])
        if len(parts) == 1 and len(parts[0].rows) == size:
            return parts[0]
        where = np.concatenate([part.where + begin for part, begin in zip(parts, begins, strict=False)])[:count]
        rows = searcher.join([part.rows for part in parts], np.resize(where, size))
        return Part(rows, np.arange(count), np.concatenate([part.who for part in parts])[:count])

    def wait(shape: Shape, at: int, part: Part) -> None:
        """Puts sentences beside those that have come as far, until these are enough for a batch."""
        other = waiting.pop((shape, at), None)
        parts = [part] if other is None else [other, part]
        count = sum(len(one.who) for one in parts)
        if count >= full[shape]:
            ready.append((shape, at, join(parts, full[shape])))
            count -= full[shape]
            parts = [part.only(slice(len(part.who) - count, None))]
        if count:
            waiting[shape, at] = join(parts, count)

    def start_next() -> bool:
        """Has the device go on with something; false if there is nothing that could."""
        if ready:
            go_on(*ready.popleft())
            return True
        held = sum(len(part.rows) * positions_of(shape, beam) for (shape, _), part in waiting.items())
        if held < WAITING * batch_tokens * len(devices) and (new := next(fresh, None)):
            go_on(new[0], 0, begin(*new))
            return True
        # What is left over: first those that are behind, for what is left of them may join the others.
        for shape, at in sorted(waiting):
            if all(shape != other or at < step for other, step, _ in running):
                go_on(shape, at, waiting.pop((shape, at)))
                return True
        return False

    def keep(part: Part) -> None:
        """Notes the results of sentences that are done."""
        found = searcher.results(part.rows)
        tokens, lengths, scores, log_probs = map(
            np.asarray, (found.tokens, found.lengths, found.scores, found.log_probs)
        )
        for row, i in zip(part.where, part.who, strict=True):
            results[i] = [
                Result(tokens[row, k, : lengths[row, k]].tolist(), float(scores[row, k]), float(log_probs[row, k]))
                for k in range(wanted)
                if log_probs[row, k] > NEVER / 2
            ]
        progress(len(part.who))

    # Two batches take turns, so that the device works on one while the host looks at the other.
    while True:
        while len(running) < 2 and start_next():
            pass
        if not running:
            return results
        shape, at, part = running.popleft()
        done = np.asarray(part.rows.search.done)[part.where]
        if done.any():
            keep(part.only(done))
        if not done.all():
            wait(shape, at, part.only(~done))


def room_for(step: int, shape: Shape) -> int:
    """For how many tokens there is room so far."""
    return min(max(ROOM, 1 << max(step - 1, 0).bit_length()), shape.answer)
