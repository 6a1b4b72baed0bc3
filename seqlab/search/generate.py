"""Generates hypotheses for requests. Each shape is compiled once, and results are in the order of the requests."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seqlab.search.ensemble import Ensemble, has_attention
from seqlab.search.processors import NEVER
from seqlab.search.requests import (
    BATCH_SIZES,
    Request,
    Shape,
    check_request,
    collate,
    max_rows,
    positions_of,
    shapes,
)
from seqlab.search.scheduler import Engine, Limits, RunningBatch, Scheduler
from seqlab.search.searcher import ActiveRows, make_mesh, make_searcher
from seqlab.search.settings import SearchSettings
from seqlab.system.errors import SeqlabError
from seqlab.types import Generator, Params

STEPS_PER_CALL = 4  # steps between checks of which sentences are done
ROOM = 16  # initial room for tokens; it doubles as needed
WAITING = 4  # maximum size of waiting batches, in full batches
IN_FLIGHT = 2  # the device computes one batch while the host checks the other


class Result(NamedTuple):
    """Generated ids with EOS; the score normalized by length; the log-probability."""

    ids: list[int]
    score: float
    log_prob: float


def check_requests(model: Generator | Ensemble, requests: Sequence[Request], settings: SearchSettings) -> None:
    """Raises `SeqlabError` if the model does not support the search, or if a request cannot be satisfied."""
    static, coverage = settings.static, settings.weights.coverage
    if coverage and not has_attention(model):
        raise SeqlabError("the coverage penalty needs a model with attention over the source: leave out --coverage")
    searching = not static.greedy and not static.sampling
    if coverage and not searching:
        raise SeqlabError("the coverage penalty needs beam search: set --beam to 2 or more, and leave out --sample")
    for i, request in enumerate(requests):
        check_request(request.name(i), request, model, static)
        refills = static.rules.survivors == "refill"
        if request.phrases and (not searching or static.groups > 1 or not refills):
            raise SeqlabError(
                "required phrases need --beam 2 or more, no --groups, no --sample, and a preset that refills the "
                "beam, such as seqlab"
            )


def generate(
    model: Generator | Ensemble,
    params: Params,
    requests: Sequence[Request],
    settings: SearchSettings,
    *,
    devices: Sequence[Any] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> list[list[Result]]:
    """Returns the best results of each request, best first, in the order of `requests`: `settings.static.nbest` of
    them, or fewer where fewer exist.

    The rows of a batch are split over the `devices`, by default all devices of this process. `progress` receives the
    number of sentences whenever some are finished. Raises `SeqlabError` as `check_requests` does.
    """
    check_requests(model, requests, settings)
    devices, static = tuple(devices or jax.local_devices()), settings.static
    mesh = make_mesh(devices)
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    searcher = make_searcher(model, static, mesh)
    results: list[list[Result]] = [[] for _ in requests]
    members = shapes(requests, model)

    def begin(shape: Shape, indices: list[int], size: int) -> ActiveRows:
        batch = collate([requests[i] for i in indices], size, shape)
        return searcher.begin(params, batch, length=room_for(0, shape))

    def advance(shape: Shape, step: int, rows: ActiveRows) -> tuple[ActiveRows, int]:
        end = min(step + STEPS_PER_CALL, shape.text)
        more = room_for(end, shape) - room_for(step, shape)
        if more:
            rows = searcher.grow(rows, more=more)
        span = {"prompt_end": shape.prompt - 1, "max_length": shape.text}
        return searcher.advance(params, rows, step, end, settings.weights, settings.seed, **span), end

    def store_results(batch: RunningBatch) -> None:
        hypotheses = searcher.results(batch.rows)
        fields = hypotheses.tokens, hypotheses.lengths, hypotheses.scores, hypotheses.log_probs
        tokens, lengths, scores, log_probs = map(np.asarray, fields)
        for row, i in zip(batch.row_indices, batch.request_indices, strict=True):
            results[i] = [
                Result(tokens[row, k, : lengths[row, k]].tolist(), float(scores[row, k]), float(log_probs[row, k]))
                for k in range(static.nbest)
                if log_probs[row, k] > NEVER / 2
            ]
        progress(batch.size)

    def is_done(rows: ActiveRows) -> np.ndarray:
        return np.asarray(rows.search_state.done)

    limits = Limits(
        sizes=[rows * len(devices) for rows in BATCH_SIZES],
        full_sizes={shape: max_rows(shape, static.beam, settings.batch_tokens) * len(devices) for shape in members},
        cost=lambda shape: positions_of(shape, static.beam),
        max_waiting_cost=WAITING * settings.batch_tokens * len(devices),
        in_flight=IN_FLIGHT,
    )
    Scheduler(Engine(begin, advance, searcher.join, len, is_done, store_results), members, limits).run()
    return results


def room_for(step: int, shape: Shape) -> int:
    """Returns the number of tokens that there is room for at a step."""
    return min(max(ROOM, 1 << max(step - 1, 0).bit_length()), shape.text)
