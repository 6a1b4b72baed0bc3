"""Batch plans: pure functions of (data, seed, epoch).

A plan is one of three: `Buckets` of examples of like length, one shape each; `Packing` of short examples into long
rows; `Streams`, stretches of one long text. Whatever the size of the data, a plan is ready at once (after it has been
cached), and an epoch's order is never written down: it is a permutation that is computed where it is looked at.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class BatchPlan(NamedTuple):
    """One batch to be, of `row_count` rows padded to `shape`.

    `indices`, of examples: at most `row_count` in a bucket, `examples_per_row` in the rows of a packing; of tokens,
    where rows begin, in a stream, of which this may be the first batch: `starts_stream`.
    """

    indices: np.ndarray
    shape: tuple[int, ...]
    row_count: int
    starts_stream: bool = False
    examples_per_row: np.ndarray | None = None

    def only(self, chosen: np.ndarray) -> "BatchPlan":
        """The batch of some rows, by number from 0, in ascending order; numbers beyond the last are empty rows."""
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
        """Examples that are in no batch."""
        ...

    @property
    def longest(self) -> int:
        """Most positions of a side of any batch."""
        ...

    def batches(self, seed: int, epoch: int | None) -> Sequence[BatchPlan]:
        """The batches of an epoch in their order; epoch None: everything once, in the order of the data."""
        ...

    def describe(self) -> Iterator[str]:
        """The plan in lines of text: shapes, rows, share of padding; what is left out."""
        ...


def shuffled(at: np.ndarray, count: int, *seed: int) -> np.ndarray:
    """The images of the numbers `at` under a random permutation of 0 .. count - 1 that `seed` determines.

    A Feistel network of four rounds on as many bits as `count` needs; what falls outside goes through again
    (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
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
    """`length` batches, each made when it is asked for."""

    def __init__(self, length: int, make: Callable[[int], BatchPlan]):
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            raise TypeError("batches are taken one at a time")
        if not -self.length <= i < self.length:
            raise IndexError(i)
        return self.make(i % self.length)
