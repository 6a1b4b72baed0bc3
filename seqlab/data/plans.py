"""Batch plans: pure functions of (data, seed, epoch).

There are three kinds of plans: `Buckets` of examples of similar length, each with one shape; `Packing` of short
examples into long rows; `Streams` of one long text. A cached plan loads in constant time. The order of an epoch is
not stored: it is a permutation, computed where it is needed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class BatchPlan(NamedTuple):
    """The plan of one batch of `row_count` rows, padded to `shape`.

    `indices` are the indices of examples: at most `row_count` in a bucket, `examples_per_row` per row in a packing.
    In streams, they are the positions of the tokens that start the rows; `starts_stream` is true for the first batch.
    """

    indices: np.ndarray
    shape: tuple[int, ...]
    row_count: int
    starts_stream: bool = False
    examples_per_row: np.ndarray | None = None

    def only(self, chosen: np.ndarray) -> "BatchPlan":
        """Returns the plan of the chosen rows, numbered from 0, in ascending order. Numbers beyond the last row are
        empty rows.
        """
        row_count, counts = len(chosen), self.examples_per_row
        if counts is None:
            return self._replace(indices=self.indices[chosen[chosen < len(self.indices)]], row_count=row_count)
        ends = np.cumsum(counts)
        real = chosen[chosen < len(counts)]
        members = [self.indices[ends[row] - counts[row] : ends[row]] for row in real]
        indices = np.concatenate([self.indices[:0], *members])
        return self._replace(indices=indices, row_count=row_count, examples_per_row=counts[real])


@runtime_checkable
class Plan(Protocol):
    @property
    def left_out(self) -> int:
        """The number of examples that are in no batch."""
        ...

    @property
    def longest(self) -> int:
        """The maximum number of positions on one side of any batch."""
        ...

    def batches(self, seed: int, epoch: int | None) -> Sequence[BatchPlan]:
        """Returns the batches of an epoch in order. If `epoch` is None, they contain all examples once, in data
        order.
        """
        ...

    def describe(self) -> Iterator[str]:
        """Yields lines that describe the plan: shapes, rows, share of padding, and examples that are left out."""
        ...


def shuffled(at: np.ndarray, count: int, *seed: int) -> np.ndarray:
    """Returns the images of the numbers `at` under a random permutation of 0 .. count - 1 that `seed` determines.

    The permutation is a Feistel network of four rounds on as many bits as `count` needs. It is reapplied to results
    outside of the range (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = np.uint64(max((max(count - 1, 1).bit_length() + 1) // 2, 1))
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng(seed).integers(1 << 63, size=4, dtype=np.uint64)

    def permute(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & low
        for key in keys:
            mixed = (right ^ key) * np.uint64(0xBF58476D1CE4E5B9)  # constants of SplitMix64
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & low)
        return (left << half) | right

    x = permute(np.asarray(at, np.uint64))
    while (outside := x >= count).any():
        x[outside] = permute(x[outside])
    return x.astype(np.int64)


class LazyBatches(Sequence[BatchPlan]):
    """A sequence of `length` batches, each computed on access."""

    def __init__(self, length: int, make: Callable[[int], BatchPlan]):
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            raise TypeError("batches do not support slices")
        if not -self.length <= i < self.length:
            raise IndexError(i)
        return self.make(i % self.length)
