"""Keeps the batches of a search full: removes sentences that are done, and joins the others across batches."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqlab.search.requests import Shape


def join_rows(parts: Sequence[Any], indices: jax.Array) -> Any:
    """Returns rows of several batches, by indices into their concatenation."""
    return jax.tree.map(lambda *x: jnp.concatenate(x)[indices], *parts)


class RunningBatch(NamedTuple):
    """Sentences of one shape at the same step. The rows `row_indices` belong to the requests `request_indices`. Other
    rows fill up the batch.
    """

    rows: Any
    row_indices: np.ndarray
    request_indices: np.ndarray

    def only(self, chosen: Any) -> "RunningBatch":
        """Returns the batch with some of its sentences. Its rows do not change."""
        return self._replace(row_indices=self.row_indices[chosen], request_indices=self.request_indices[chosen])

    @property
    def size(self) -> int:
        """Number of sentences."""
        return len(self.request_indices)


class Engine(NamedTuple):
    """The operations of a search on the rows of a batch. `size` returns the number of rows, their first axis."""

    begin: Callable[[Shape, list[int], int], Any]
    """(shape, request indices, number of rows): the rows before their first step."""
    advance: Callable[[Shape, int, Any], tuple[Any, int]]
    """(shape, step, rows): the rows some steps later, and their step."""
    join: Callable[[list[Any], np.ndarray], Any]
    """(rows of several batches, indices into their concatenation): one batch with these rows."""
    size: Callable[[Any], int]
    is_done: Callable[[Any], np.ndarray]
    """Whether each row is done, read from the device."""
    store_results: Callable[[RunningBatch], None]
    """Stores the results of sentences that are done."""


class Limits(NamedTuple):
    """The limits of batches. `sizes`: possible numbers of rows, ascending; each is compiled. `full_sizes`: number of
    sentences of a shape that fill a batch. `cost`: cost of a waiting row of a shape; no batch begins while the
    waiting rows cost `max_waiting_cost` or more. `in_flight`: number of batches that run on the device at a time.
    """

    sizes: Sequence[int]
    full_sizes: Mapping[Shape, int]
    cost: Callable[[Shape], int]
    max_waiting_cost: int
    in_flight: int


class Scheduler:
    """Runs the requests of each shape, given by their indices, in batches of one shape."""

    def __init__(self, engine: Engine, members: Mapping[Shape, list[int]], limits: Limits):
        self.engine, self.limits = engine, limits
        self.fresh = self.fresh_groups(members)
        self.partial_batches: dict[tuple[Shape, int], RunningBatch] = {}  # by shape and step
        self.full_batches: collections.deque[tuple[Shape, int, RunningBatch]] = collections.deque()
        self.running: collections.deque[tuple[Shape, int, RunningBatch]] = collections.deque()

    def fresh_groups(self, members: Mapping[Shape, list[int]]) -> Iterator[tuple[Shape, list[int]]]:
        for shape, indices in members.items():
            full = self.limits.full_sizes[shape]
            for at in range(0, len(indices), full):
                yield shape, indices[at : at + full]

    def run(self) -> None:
        """Runs all requests, and returns when their results are stored."""
        while True:
            while len(self.running) < self.limits.in_flight and self.start_next():
                pass
            if not self.running:
                return
            shape, step, batch = self.running.popleft()
            done = self.engine.is_done(batch.rows)[batch.row_indices]
            if done.any():
                self.engine.store_results(batch.only(done))
            if not done.all():
                self.wait(shape, step, batch.only(~done))

    def start_next(self) -> bool:
        """Starts some steps of a batch on the device. Returns false if there is no batch to start."""
        if self.full_batches:
            self.advance(*self.full_batches.popleft())
            return True
        waiting = self.partial_batches.items()
        cost = sum(self.engine.size(batch.rows) * self.limits.cost(shape) for (shape, _), batch in waiting)
        if cost < self.limits.max_waiting_cost and (fresh := next(self.fresh, None)):
            shape, indices = fresh
            rows = self.engine.begin(shape, indices, self.size_for(len(indices)))
            self.advance(shape, 0, RunningBatch(rows, np.arange(len(indices)), np.array(indices)))
            return True
        # Of the partial batches, the earliest step comes first: its sentences may later join the others.
        for shape, step in sorted(self.partial_batches):
            if all(shape != running or step < running_step for running, running_step, _ in self.running):
                self.advance(shape, step, self.partial_batches.pop((shape, step)))
                return True
        return False

    def advance(self, shape: Shape, step: int, batch: RunningBatch) -> None:
        rows, end = self.engine.advance(shape, step, batch.rows)
        self.running.append((shape, end, batch._replace(rows=rows)))

    def wait(self, shape: Shape, step: int, batch: RunningBatch) -> None:
        """Joins sentences with waiting ones of the same shape and step, until they fill a batch."""
        earlier, full = self.partial_batches.pop((shape, step), None), self.limits.full_sizes[shape]
        batches = [batch] if earlier is None else [earlier, batch]
        count = sum(batch.size for batch in batches)
        if count >= full:
            self.full_batches.append((shape, step, self.join(batches, full)))
            count -= full
            batches = [batch.only(slice(batch.size - count, None))]
        if count:
            self.partial_batches[shape, step] = self.join(batches, count)

    def join(self, batches: list[RunningBatch], count: int) -> RunningBatch:
        """Returns the first `count` sentences of some batches, in the fewest rows that hold them."""
        sizes, size = [self.engine.size(batch.rows) for batch in batches], self.size_for(count)
        if sizes == [size]:
            return batches[0]
        begins = np.cumsum([0, *sizes])
        chosen = np.concatenate([batch.row_indices + begin for batch, begin in zip(batches, begins, strict=False)])
        rows = self.engine.join([batch.rows for batch in batches], np.resize(chosen[:count], size))
        requests = np.concatenate([batch.request_indices for batch in batches])[:count]
        return RunningBatch(rows, np.arange(count), requests)

    def size_for(self, count: int) -> int:
        """Returns the number of rows of a batch that holds `count` sentences."""
        return next(size for size in self.limits.sizes if size >= count)
