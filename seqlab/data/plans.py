"""Batch plans: pure functions of (data, seed, epoch).

A plan is one of three: `Buckets` of examples of like length, one shape each; `Packing` of short examples into long
rows; `Streams`, stretches of one long text. Whatever the size of the data, a plan is ready at once (after it has been
cached), and an epoch's order is never written down: it is a permutation that is computed where it is looked at.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Rows(NamedTuple):
    """One batch to be, of `rows` rows padded to `shape`.

    `indices`, of examples: at most `rows` in a bucket, `held` of them in each row of a packing; of tokens, where rows
    begin, in a stream, of which this may be the `first` batch.
    """

    indices: np.ndarray
    shape: tuple[int, ...]
    rows: int
    first: bool = False
    held: np.ndarray | None = None

    def only(self, chosen: np.ndarray) -> "Rows":
        """The batch of some rows, by number from 0, in ascending order; numbers beyond the last are empty rows."""
        if self.held is None:
            return self._replace(indices=self.indices[chosen[chosen < len(self.indices)]], rows=len(chosen))
        ends = np.cumsum(self.held)
        real, rows = chosen[chosen < len(self.held)], len(chosen)
        members = [self.indices[ends[row] - self.held[row] : ends[row]] for row in real]
        return self._replace(indices=np.concatenate([self.indices[:0], *members]), rows=rows, held=self.held[real])


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

    def batches(self, seed: int, epoch: int | None) -> Sequence[Rows]:
        """The batches of an epoch in their order; epoch None: everything once, in the order of the data."""
        ...

    def describe(self) -> Iterator[str]:
        """The plan in lines of text: shapes, rows, share of padding; what is left out."""
        ...


def shuffled(at: np.ndarray, count: int, *seed: int) -> np.ndarray:
    """Where a random permutation of 0 .. count - 1, drawn with `seed`, takes the numbers `at`.

    A Feistel network of four rounds on as many bits as `count` needs; what falls outside goes through again
    (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = np.uint64(max((max(count - 1, 1).bit_length() + 1) // 2, 1))
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng(seed).integers(1 << 63, size=4, dtype=np.uint64)

    def through(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & low
        for key in keys:
            mixed = (right ^ key) * np.uint64(0xBF58476D1CE4E5B9)  # constants of SplitMix64
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & low)
        return (left << half) | right

    x = through(np.asarray(at, np.uint64))
    while (outside := x >= count).any():
        x[outside] = through(x[outside])
    return x.astype(np.int64)


class LazyBatches(Sequence[Rows]):
    """`length` batches, each made when it is asked for."""

    def __init__(self, length: int, make: Callable[[int], Rows]):
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            raise TypeError("batches are taken one at a time")
        if not -self.length <= i < self.length:
            raise IndexError(i)
        return self.make(i % self.length)
