"""Batch plans that pack short examples into long rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqlab.data.plans import BatchPlan, LazyBatches, shuffled


class Packing(NamedTuple):
    """Consecutive examples, concatenated into rows of at most `length` tokens. Each epoch shuffles the rows.

    `members` are the examples that are not left out; row i contains those from `starts[i]` to `starts[i + 1]`.
    """

    members: np.ndarray
    starts: np.ndarray
    length: int
    rows: int
    left_out: int
    used: int  # total number of tokens in the members

    @property
    def longest(self) -> int:
        return self.length

    def batches(self, seed: int, epoch: int | None) -> Sequence[BatchPlan]:
        total = len(self.starts) - 1

        def batch(i: int) -> BatchPlan:
            rows = np.arange(i * self.rows, min((i + 1) * self.rows, total))
            rows = rows if epoch is None else shuffled(rows, total, seed, epoch)
            examples = [self.members[self.starts[row] : self.starts[row + 1]] for row in rows]
            counts = np.array([*map(len, examples)])
            return BatchPlan(np.concatenate(examples), (self.length,), self.rows, examples_per_row=counts)

        return LazyBatches(-(-total // self.rows), batch)

    def describe(self) -> Iterator[str]:
        count = len(self.starts) - 1
        share = 1 - self.used / max(count * self.length, 1)
        rows = f"{count:,} rows of {self.length}, {self.rows} per batch"
        yield f"{len(self.members):,} examples packed into {rows}, {share:.1%} padding"
        if self.left_out:
            yield f"left out: {self.left_out:,} examples longer than a row"


def make_packing(sizes: np.ndarray, length: int, rows: int) -> Packing:
    """Returns a packing of examples of `sizes` tokens into rows of `length`, with `rows` rows per batch."""
    members = np.flatnonzero(sizes <= length)
    lengths = sizes[members]
    starts = np.array([*row_starts(lengths, length), len(lengths)])
    return Packing(members, starts, length, rows, len(sizes) - len(lengths), int(lengths.sum()))


def row_starts(sizes: np.ndarray, length: int) -> list[int]:
    """Returns which of some consecutive examples start a new row of `length`."""
    ends = np.cumsum(sizes)
    starts, at = [], 0
    while at < len(sizes):
        starts.append(at)
        before = ends[at - 1] if at else 0
        at = int(np.searchsorted(ends, before + length, side="right"))
    return starts
