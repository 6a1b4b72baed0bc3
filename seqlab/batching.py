"""The batch plan: a pure function of (lengths, seed, epoch).

Examples of like length share a bucket, and a bucket has one shape, so each is compiled once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seqlab.config import Batching


class Bucket(NamedTuple):
    """`shape`: padded length of each column; `rows`: examples a batch; `members`: indices of its examples."""

    shape: tuple[int, ...]
    rows: int
    members: np.ndarray


class Plan(NamedTuple):
    buckets: list[Bucket]
    too_long: int  # examples left out
    lopsided: int  # pairs left out

    def __len__(self) -> int:
        """Batches an epoch."""
        return sum(-(-len(bucket.members) // bucket.rows) for bucket in self.buckets)


class Rows(NamedTuple):
    """One batch to be: indices of at most `rows` examples, to be padded to `shape` and filled up to `rows`."""

    indices: np.ndarray
    shape: tuple[int, ...]
    rows: int


def make_plan(lengths: np.ndarray, batching: Batching) -> Plan:
    """Buckets for examples of `lengths` [examples, columns], chosen so that the least is padded."""
    longest, shortest = lengths.max(axis=1), lengths.min(axis=1)
    too_long = longest > batching.max_length
    lopsided = ~too_long & (longest > batching.max_ratio * np.maximum(shortest, 1))
    kept = np.flatnonzero(~too_long & ~lopsided)
    buckets = []
    if len(kept):
        edges = _edges(longest[kept], batching.buckets)
        which = np.searchsorted(edges, longest[kept])
        for i in range(len(edges)):
            members = kept[which == i]
            shape = tuple(int(n) for n in np.maximum(lengths[members].max(axis=0), 1))
            rows = min(max(batching.tokens // sum(shape), 1), len(members))
            buckets.append(Bucket(shape, rows, members))
    return Plan(buckets, int(too_long.sum()), int(lopsided.sum()))


def _edges(lengths: np.ndarray, buckets: int) -> np.ndarray:
    """The largest length of each bucket, by dynamic programming over the least number of padded positions."""
    sizes, counts = np.unique(lengths, return_counts=True)
    up_to = np.concatenate([[0], np.cumsum(counts)])
    n = len(sizes)
    # cost[j]: positions if the sizes before j are covered with the buckets so far; a last bucket i..j-1
    # holds up_to[j] - up_to[i] examples of sizes[j-1] positions each.
    last = np.where(
        np.arange(n)[:, None] < np.arange(1, n + 1),
        (up_to[None, 1:] - up_to[:n, None]) * sizes[None, :],
        np.inf,
    )
    cost, starts = last[0], [np.zeros(n, int)]
    for _ in range(min(buckets, n) - 1):
        table = np.concatenate([[np.inf], cost[:-1]])[:, None] + last
        starts.append(table.argmin(axis=0))
        cost = table.min(axis=0)
    edges, end = [], n - 1
    for start in reversed(starts):
        edges.append(sizes[end])
        end = start[end] - 1
    return np.array(edges[::-1])


def epoch_batches(plan: Plan, seed: int, epoch: int | None) -> list[Rows]:
    """The batches of an epoch in their order; epoch None: every example in the order of the data."""
    random = None if epoch is None else np.random.default_rng([seed, epoch])
    batches = []
    for bucket in plan.buckets:
        members = bucket.members if random is None else random.permutation(bucket.members)
        for at in range(0, len(members), bucket.rows):
            batches.append(Rows(members[at : at + bucket.rows], bucket.shape, bucket.rows))
    if random is not None:
        batches = [batches[i] for i in random.permutation(len(batches))]
    return batches


def describe(plan: Plan, lengths: np.ndarray) -> Iterator[str]:
    """The plan in lines of text: shapes, rows, examples, share of padding; what was left out."""
    real = padded = 0
    for bucket in plan.buckets:
        positions = len(bucket.members) * sum(bucket.shape)
        used = int(lengths[bucket.members].sum())
        shape = " + ".join(map(str, bucket.shape))
        share = 1 - used / positions
        yield f"bucket {shape:>9} x {bucket.rows:4} rows: {len(bucket.members):8,} examples, {share:5.1%} padding"
        real, padded = real + used, padded + positions
    yield f"{len(plan):,} batches an epoch, {1 - real / max(padded, 1):.1%} padding"
    if plan.too_long:
        yield f"left out: {plan.too_long:,} examples longer than batching.max_length"
    if plan.lopsided:
        yield f"left out: {plan.lopsided:,} pairs more lopsided than batching.max_ratio"


def pad(rows: list[np.ndarray], length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [count, length] and mask bool of ragged rows; filled up with empty rows."""
    ids = np.zeros((count, length), np.int32)
    mask = np.zeros((count, length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    return ids, mask
