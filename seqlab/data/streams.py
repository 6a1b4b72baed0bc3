"""Batch plans of one long text, cut into stretches that are read side by side."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqlab.data.plans import BatchPlan, LazyBatches


class Streams(NamedTuple):
    """A text of `tokens`, cut into `rows` stretches that are read side by side, `length` tokens a batch.

    A row of a batch goes on where that row of the last batch stopped. Each epoch holds the whole text once, cut
    elsewhere: the first row begins up to `length` places before the text.
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
        yield f"{self.tokens:,} tokens in {self.rows} streams, {self.length} a batch: {count:,} batches an epoch"
