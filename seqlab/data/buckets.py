"""Batch plans that group examples of similar length into buckets of one shape."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqlab.config import Batching
from seqlab.data.plans import BatchPlan, LazyBatches, shuffled

LEVELS = 2048  # number of candidate shapes for buckets


class Group(NamedTuple):
    """The examples of a bucket that come from one part of the data, and how many of them an epoch takes."""

    members: np.ndarray
    taken: int


class Bucket(NamedTuple):
    """Examples of one shape. `shape`: padded length of each column; `rows`: examples per batch; `used`: total number
    of tokens in the members.
    """

    shape: tuple[int, ...]
    rows: int
    groups: list[Group]
    used: int

    @property
    def taken(self) -> int:
        return sum(group.taken for group in self.groups)


class Buckets(NamedTuple):
    """Buckets of examples of similar length. Each bucket has one shape, which is compiled once."""

    buckets: list[Bucket]
    too_long: int  # examples left out
    lopsided: int  # pairs left out

    @property
    def left_out(self) -> int:
        return self.too_long + self.lopsided

    @property
    def longest(self) -> int:
        return max((max(bucket.shape) for bucket in self.buckets), default=0)

    def batches(self, seed: int, epoch: int | None) -> Sequence[BatchPlan]:
        if epoch is None:
            members_of = [
                (bucket, np.sort(np.concatenate([g.members for g in bucket.groups]))) for bucket in self.buckets
            ]
            return [
                BatchPlan(members[at : at + bucket.rows], bucket.shape, bucket.rows)
                for bucket, members in members_of
                for at in range(0, len(members), bucket.rows)
            ]
        return batches_of(self.buckets, [bucket.taken for bucket in self.buckets], seed, epoch)

    def describe(self) -> Iterator[str]:
        real = padded = count = 0
        for bucket in self.buckets:
            members = sum(len(group.members) for group in bucket.groups)
            positions = members * sum(bucket.shape)
            shape, share = " + ".join(map(str, bucket.shape)), 1 - bucket.used / positions
            yield f"bucket {shape:>9} x {bucket.rows:4} rows: {members:8,} examples, {share:5.1%} padding"
            real, padded = real + bucket.used, padded + positions
            count += -(-bucket.taken // bucket.rows)
        yield f"{count:,} batches per epoch, {1 - real / max(padded, 1):.1%} padding"
        if self.too_long:
            yield f"left out: {self.too_long:,} examples longer than batching.max_length"
        if self.lopsided:
            yield f"left out: {self.lopsided:,} pairs more lopsided than batching.max_ratio"


def batches_of(buckets: Sequence[Bucket], counts: Sequence[int], seed: int, epoch: int) -> Sequence[BatchPlan]:
    """Returns the batches of an epoch in order. Of the examples that bucket i takes in the epoch, only the first
    `counts[i]` are used.
    """
    ends = np.cumsum([-(-count // bucket.rows) for bucket, count in zip(buckets, counts, strict=True)])

    def batch(i: int) -> BatchPlan:
        i = int(shuffled(np.array([i]), int(ends[-1]), seed, epoch, 0)[0])
        index = int(np.searchsorted(ends, i, side="right"))
        bucket = buckets[index]
        at = (i - (ends[index - 1] if index else 0)) * bucket.rows
        places = np.arange(at, min(at + bucket.rows, counts[index]))
        return BatchPlan(_examples_at(bucket, index, places, seed, epoch), bucket.shape, bucket.rows)

    return LazyBatches(int(ends[-1]) if buckets else 0, batch)


def _examples_at(bucket: Bucket, index: int, places: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Returns the examples at some positions of an epoch of bucket `index`. Each epoch continues each group where the
    preceding epoch ended; each pass through a group has a new order.
    """
    spots = shuffled(places, bucket.taken, seed, epoch, 1, index)
    examples = np.empty(len(spots), np.int64)
    start = 0
    for number, (members, taken) in enumerate(bucket.groups):
        in_group = (spots >= start) & (spots < start + taken)
        rounds, within = np.divmod(spots[in_group] - start + epoch * taken, max(len(members), 1))
        drawn = within.copy()
        for turn in np.unique(rounds):
            in_turn = rounds == turn
            drawn[in_turn] = shuffled(within[in_turn], len(members), seed, int(turn), 2, index, number)
        examples[in_group] = members[drawn]
        start += taken
    return examples


def make_buckets(lengths: np.ndarray, batching: Batching, parts: Sequence[tuple[int, float]] = ()) -> Buckets:
    """Returns buckets for examples of `lengths` [examples, columns], chosen to minimize padding.

    `parts` are the sizes of the consecutive parts of the data and their rates; by default there is one part. An epoch
    of a mixture has as many examples as there are usable ones. Each part contributes in proportion to its rate, but
    at least one example to each bucket.
    """
    longest, shortest = lengths.max(axis=1), lengths.min(axis=1)
    too_long = longest > batching.max_length
    lopsided = ~too_long & (longest > batching.max_ratio * np.maximum(shortest, 1))
    usable = np.flatnonzero(~too_long & ~lopsided)
    shapes = _shapes(lengths[usable], batching.buckets) if len(usable) else []
    bucket_of = np.full(len(usable), len(shapes))
    # From the largest shape down, so that an example ends up in the smallest shape that it fits into.
    for i, shape in reversed(list(enumerate(shapes))):
        bucket_of[(lengths[usable] <= shape).all(axis=1)] = i
    part_of = np.searchsorted(np.cumsum([size for size, _ in parts[:-1]]), usable, side="right")
    part_counts = np.bincount(part_of, minlength=max(len(parts), 1))
    rates = np.array([rate for _, rate in parts] or [1.0]) * (part_counts > 0)
    times = rates / rates.sum() * len(usable) / np.maximum(part_counts, 1) if len(usable) else rates
    buckets = []
    for i in range(len(shapes)):
        inside = bucket_of == i
        members = usable[inside]
        shape = tuple(int(n) for n in np.maximum(lengths[members].max(axis=0), 1))
        groups = [
            Group(examples, max(round(len(examples) * times[j]), 1))
            for j in range(len(part_counts))
            for examples in [members[part_of[inside] == j]]
            if len(examples)
        ]
        rows = min(max(batching.tokens // sum(shape), 1), sum(group.taken for group in groups))
        buckets.append(Bucket(shape, rows, groups, int(lengths[members].sum())))
    return Buckets(buckets, int(too_long.sum()), int(lopsided.sum()))


def _shapes(lengths: np.ndarray, buckets: int) -> np.ndarray:
    """Returns at most `buckets` shapes, smallest first, with little padding if each example takes the smallest shape
    that it fits into.

    Shapes are added greedily, each the one that saves most, and then exchanged one at a time until no exchange saves
    padding.
    """
    grid = [_levels(column, round(LEVELS ** (1 / lengths.shape[1]))) for column in lengths.T]
    counts = np.zeros([len(levels) for levels in grid])
    np.add.at(counts, tuple(np.searchsorted(levels, c) for levels, c in zip(grid, lengths.T, strict=True)), 1)
    shapes = np.stack([axis.ravel() for axis in np.meshgrid(*grid, indexing="ij")], axis=1)
    occupied = counts.ravel() > 0
    cells, weights = shapes[occupied], counts.ravel()[occupied]
    fits = (cells[None] <= shapes[:, None]).all(axis=-1)
    nowhere = shapes[-1].sum() * weights.sum() + 1  # costs more than any padding, so every example fits somewhere
    positions = np.where(fits, shapes.sum(axis=1)[:, None], nowhere)  # [shape, cell], for one example

    def savings(chosen: list[int]) -> np.ndarray:
        return np.maximum(positions[chosen].min(axis=0, initial=nowhere) - positions, 0) @ weights

    chosen: list[int] = []
    while len(chosen) < min(buckets, len(cells)):
        chosen.append(int(savings(chosen).argmax()))
    unchanged = 0
    while unchanged < len(chosen):  # the first shape is exchanged or retained, and moves to the end
        first, *chosen = chosen
        gains = savings(chosen)
        better = int(gains.argmax())
        unchanged = unchanged + 1 if gains[better] == gains[first] else 0
        chosen.append(first if unchanged else better)
    used = np.unique(positions[chosen].argmin(axis=0))
    best = shapes[[chosen[i] for i in used]]
    return best[np.argsort(best.sum(axis=1), kind="stable")]


def _levels(lengths: np.ndarray, maximum: int) -> np.ndarray:
    """Returns the candidate lengths of buckets: all lengths that occur, or at most `maximum` of their quantiles."""
    levels = np.unique(lengths)
    if len(levels) <= maximum:
        return levels
    return np.unique(np.quantile(lengths, np.linspace(0, 1, maximum), method="higher"))
