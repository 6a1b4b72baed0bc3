"""Batch plans for one long text, split into streams that are read in parallel."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqlab.data.plans import BatchPlan, LazyBatches


class Streams(NamedTuple):
    """A text of `tokens`, split into `rows` streams that are read in parallel, `length` tokens per batch.

    Each row of a batch continues where the same row of the preceding batch ended. Each epoch contains the whole text
    once, split at different positions: the first row starts up to `length` positions before the text.
    """

    tokens: int
    length: int
    rows: int

    @property
    def left_out(self) -> int:
        return 0

    @property
    def longest(self) -> int:
        return self.length

    def batches(self, seed: int, epoch: int | None) -> Sequence[BatchPlan]:
        before = 0 if epoch is None else int(np.random.default_rng([seed, epoch]).integers(self.length))
        count = -(-(self.tokens + self.length - 1) // (self.rows * self.length))
        stretches = np.arange(self.rows) * count * self.length - before
        return LazyBatches(count, lambda i: BatchPlan(stretches + i * self.length, (self.length,), self.rows, i == 0))

    def describe(self) -> Iterator[str]:
        count = len(self.batches(0, 0))
        yield f"{self.tokens:,} tokens in {self.rows} streams, {self.length} per batch: {count:,} batches per epoch"
