"""Batch plans: pure functions of (data, seed, epoch).

A plan is one of three: `Buckets` of examples of like length, one shape each; `Packing` of short examples into long
rows; `Streams`, stretches of one long text. Whatever the size of the data, a plan (once kept) is ready at once,
and an epoch's order is never written down: it is a permutation that is computed where it is looked at.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from seqlab.config import Batching
from seqlab.errors import SeqlabError
from seqlab.files import folder_made_once
from seqlab.untrusted import fits, read_json


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

    def only(self, which: np.ndarray) -> "Rows":
        """The batch of some rows alone, numbered from 0 on, in ascending order; there may be none behind the last."""
        if self.held is None:
            return self._replace(indices=self.indices[which[which < len(self.indices)]], rows=len(which))
        ends = np.cumsum(self.held)
        which, rows = which[which < len(self.held)], len(which)
        found = [self.indices[ends[row] - self.held[row] : ends[row]] for row in which]
        return self._replace(indices=np.concatenate([self.indices[:0], *found]), rows=rows, held=self.held[which])


VERSION = 2  # to be raised when the same lengths give other buckets: those kept are then made anew
MOST_TAKEN = 1 << 40  # examples of a bucket in an epoch: their places are counted in 64 bits, epoch by epoch
LEVELS = 2048  # shapes among which those of buckets are chosen


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


class Lazy(Sequence[Rows]):
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


class Group(NamedTuple):
    """Examples of a bucket that come from one part of the data, and how many of them an epoch takes."""

    members: np.ndarray
    taken: int


class Bucket(NamedTuple):
    """`shape`: padded length of each column; `rows`: examples a batch; `used`: tokens of all its members."""

    shape: tuple[int, ...]
    rows: int
    groups: list[Group]
    used: int

    @property
    def taken(self) -> int:
        return sum(group.taken for group in self.groups)


class Buckets(NamedTuple):
    """Examples of like length share a bucket, and a bucket has one shape, so each is compiled once."""

    buckets: list[Bucket]
    too_long: int  # examples left out
    lopsided: int  # pairs left out

    @property
    def left_out(self) -> int:
        return self.too_long + self.lopsided

    @property
    def longest(self) -> int:
        return max((max(bucket.shape) for bucket in self.buckets), default=0)

    def batches(self, seed: int, epoch: int | None) -> Sequence[Rows]:
        if epoch is None:
            every = [(bucket, np.sort(np.concatenate([g.members for g in bucket.groups]))) for bucket in self.buckets]
            return [
                Rows(members[at : at + bucket.rows], bucket.shape, bucket.rows)
                for bucket, members in every
                for at in range(0, len(members), bucket.rows)
            ]
        ends = np.cumsum([-(-bucket.taken // bucket.rows) for bucket in self.buckets])

        def batch(i: int) -> Rows:
            i = int(shuffled(np.array([i]), int(ends[-1]), seed, epoch, 0)[0])
            which = int(np.searchsorted(ends, i, side="right"))
            bucket = self.buckets[which]
            at = (i - (ends[which - 1] if which else 0)) * bucket.rows
            places = np.arange(at, min(at + bucket.rows, bucket.taken))
            return Rows(_drawn(bucket, which, places, seed, epoch), bucket.shape, bucket.rows)

        return Lazy(int(ends[-1]) if self.buckets else 0, batch)

    def describe(self) -> Iterator[str]:
        real = padded = count = 0
        for bucket in self.buckets:
            members = sum(len(group.members) for group in bucket.groups)
            positions = members * sum(bucket.shape)
            shape, share = " + ".join(map(str, bucket.shape)), 1 - bucket.used / positions
            yield f"bucket {shape:>9} x {bucket.rows:4} rows: {members:8,} examples, {share:5.1%} padding"
            real, padded = real + bucket.used, padded + positions
            count += -(-bucket.taken // bucket.rows)
        yield f"{count:,} batches an epoch, {1 - real / max(padded, 1):.1%} padding"
        if self.too_long:
            yield f"left out: {self.too_long:,} examples longer than batching.max_length"
        if self.lopsided:
            yield f"left out: {self.lopsided:,} pairs more lopsided than batching.max_ratio"


def _drawn(bucket: Bucket, which: int, places: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The examples at some places of a bucket's epoch. A group is gone through again and again, each time in
    another order, and an epoch takes up where the last one stopped.
    """
    spots = shuffled(places, bucket.taken, seed, epoch, 1, which)
    found = np.empty(len(spots), np.int64)
    start = 0
    for number, (members, taken) in enumerate(bucket.groups):
        mine = (spots >= start) & (spots < start + taken)
        rounds, within = np.divmod(spots[mine] - start + epoch * taken, max(len(members), 1))
        drawn = within.copy()
        for turn in np.unique(rounds):
            same = rounds == turn
            drawn[same] = shuffled(within[same], len(members), seed, int(turn), 2, which, number)
        found[mine] = members[drawn]
        start += taken
    return found


def make_buckets(lengths: np.ndarray, batching: Batching, parts: Sequence[tuple[int, float]] = ()) -> Buckets:
    """Buckets for examples of `lengths` [examples, columns], chosen so that the least is padded.

    `parts` are the sizes of the stretches that the examples come from, one behind the other, and their rates; by
    default there is one. An epoch of a mixture has as many examples as are not left out, of each part the share
    that its rate says, but at least one of each part in each bucket.
    """
    longest, shortest = lengths.max(axis=1), lengths.min(axis=1)
    too_long = longest > batching.max_length
    lopsided = ~too_long & (longest > batching.max_ratio * np.maximum(shortest, 1))
    kept = np.flatnonzero(~too_long & ~lopsided)
    shapes = _shapes(lengths[kept], batching.buckets) if len(kept) else []
    which = np.full(len(kept), len(shapes))
    # From the largest down, so that the least shape that holds an example is the last to claim it.
    for i, shape in reversed(list(enumerate(shapes))):
        which[(lengths[kept] <= shape).all(axis=1)] = i
    part_of = np.searchsorted(np.cumsum([size for size, _ in parts[:-1]]), kept, side="right")
    held = np.bincount(part_of, minlength=max(len(parts), 1))
    rates = np.array([rate for _, rate in parts] or [1.0]) * (held > 0)
    times = rates / rates.sum() * len(kept) / np.maximum(held, 1) if len(kept) else rates
    buckets = []
    for i in range(len(shapes)):
        inside = which == i
        members = kept[inside]
        shape = tuple(int(n) for n in np.maximum(lengths[members].max(axis=0), 1))
        groups = [
            Group(mine, max(round(len(mine) * times[j]), 1))
            for j in range(len(held))
            for mine in [members[part_of[inside] == j]]
            if len(mine)
        ]
        rows = min(max(batching.tokens // sum(shape), 1), sum(group.taken for group in groups))
        buckets.append(Bucket(shape, rows, groups, int(lengths[members].sum())))
    return Buckets(buckets, int(too_long.sum()), int(lopsided.sum()))


def _shapes(lengths: np.ndarray, buckets: int) -> np.ndarray:
    """At most `buckets` shapes, least first, such that little is padded if an example takes the least it fits into.

    They are added one by one, each the one that saves most, and then exchanged one by one until no exchange saves
    any more.
    """
    grid = [_levels(column, round(LEVELS ** (1 / lengths.shape[1]))) for column in lengths.T]
    counts = np.zeros([len(levels) for levels in grid])
    np.add.at(counts, tuple(np.searchsorted(levels, c) for levels, c in zip(grid, lengths.T, strict=True)), 1)
    shapes = np.stack([axis.ravel() for axis in np.meshgrid(*grid, indexing="ij")], axis=1)
    held = counts.ravel() > 0
    cells, weights = shapes[held], counts.ravel()[held]
    fits = (cells[None] <= shapes[:, None]).all(axis=-1)
    nowhere = shapes[-1].sum() * weights.sum() + 1  # worse than any padding, so every example fits somewhere
    positions = np.where(fits, shapes.sum(axis=1)[:, None], nowhere)  # [shape, cell], of one example

    def saved(others: list[int]) -> np.ndarray:
        return np.maximum(positions[others].min(axis=0, initial=nowhere) - positions, 0) @ weights

    chosen: list[int] = []
    while len(chosen) < min(buckets, len(cells)):
        chosen.append(int(saved(chosen).argmax()))
    settled = 0
    while settled < len(chosen):  # the first of them is looked at and goes to the end
        first, *chosen = chosen
        gains = saved(chosen)
        better = int(gains.argmax())
        settled = settled + 1 if gains[better] == gains[first] else 0
        chosen.append(first if settled else better)
    used = np.unique(positions[chosen].argmin(axis=0))
    found = shapes[[chosen[i] for i in used]]
    return found[np.argsort(found.sum(axis=1), kind="stable")]


def _levels(lengths: np.ndarray, most: int) -> np.ndarray:
    """The lengths among which a bucket's may be chosen: all that occur, or `most` of their quantiles."""
    levels = np.unique(lengths)
    if len(levels) <= most:
        return levels
    return np.unique(np.quantile(lengths, np.linspace(0, 1, most), method="higher"))


class Packing(NamedTuple):
    """Examples one behind the other, as many to a row of `length` as fit. An epoch shuffles the rows.

    `members` are the examples that are not left out; row i has those from `starts[i]` to `starts[i + 1]`.
    """

    members: np.ndarray
    starts: np.ndarray
    length: int
    rows: int
    left_out: int
    used: int  # tokens of all members

    @property
    def longest(self) -> int:
        return self.length

    def batches(self, seed: int, epoch: int | None) -> Sequence[Rows]:
        total = len(self.starts) - 1

        def batch(i: int) -> Rows:
            some = np.arange(i * self.rows, min((i + 1) * self.rows, total))
            some = some if epoch is None else shuffled(some, total, seed, epoch)
            found = [self.members[self.starts[row] : self.starts[row + 1]] for row in some]
            return Rows(np.concatenate(found), (self.length,), self.rows, held=np.array([*map(len, found)]))

        return Lazy(-(-total // self.rows), batch)

    def describe(self) -> Iterator[str]:
        count = len(self.starts) - 1
        share = 1 - self.used / max(count * self.length, 1)
        rows = f"{count:,} rows of {self.length}, {self.rows} a batch"
        yield f"{len(self.members):,} examples packed into {rows}, {share:.1%} padding"
        if self.left_out:
            yield f"left out: {self.left_out:,} examples longer than a row"


def make_packing(sizes: np.ndarray, length: int, rows: int) -> Packing:
    """Examples of `sizes` tokens in rows of `length`, `rows` of them a batch."""
    members = np.flatnonzero(sizes <= length)
    kept = sizes[members]
    starts = np.array([*row_starts(kept, length), len(kept)])
    return Packing(members, starts, length, rows, len(sizes) - len(kept), int(kept.sum()))


def row_starts(sizes: np.ndarray, length: int) -> list[int]:
    """Which of some examples, laid one behind the other, begin a new row of `length`."""
    ends = np.cumsum(sizes)
    starts, at = [], 0
    while at < len(sizes):
        starts.append(at)
        before = ends[at - 1] if at else 0
        at = int(np.searchsorted(ends, before + length, side="right"))
    return starts


def kept_plan(
    folder: Path, make: Callable[[], Buckets | Packing], batching: Batching, examples: int
) -> Buckets | Packing:
    """What `make` gives for so many examples, made once and then read from `folder`: its arrays stay in a memory map.

    Raises `SeqlabError` for a damaged one, whose batches `batching` would not have.
    """
    folder_made_once(folder, lambda part: _save(make(), part))
    plan = _load(folder)
    if plan is None or not _possible(plan, batching, examples):
        raise SeqlabError(f"{folder}: a damaged plan; remove it, and it is made again")
    return plan


PACKING = {"length": int, "rows": int, "left_out": int, "used": int}  # in plan.json, and of what type
BUCKETS = {"buckets": list[tuple[list[int], int, list[int], int]], "too_long": int, "lopsided": int}


def _load(folder: Path) -> Buckets | Packing | None:
    """The plan that `_save` wrote; None for what it never writes."""
    try:
        facts, path = read_json(folder / "plan.json", dict[str, Any]), folder / "arrays"
    except SeqlabError:
        return None
    sizes = facts.pop("sizes", None)
    form = BUCKETS if "buckets" in facts else PACKING
    if facts.keys() != form.keys() or not all(fits(facts[name], kind) for name, kind in form.items()):
        return None
    held = path.stat().st_size if path.is_file() else -1
    wanted = sum(len(groups) for _, _, groups, _ in facts["buckets"]) if "buckets" in facts else 2
    whole = fits(sizes, list[int]) and len(sizes) == wanted and min(sizes, default=0) >= 0 and 8 * sum(sizes) == held
    if not whole:
        return None
    flat = np.memmap(path, "<i8", "r") if held else np.zeros(0, np.int64)
    arrays = iter(np.split(flat, np.cumsum(sizes, dtype=np.int64)[:-1]))
    if "buckets" not in facts:
        return Packing(next(arrays), next(arrays), **facts)
    buckets = [
        Bucket(tuple(shape), rows, [Group(next(arrays), taken) for taken in groups], used)
        for shape, rows, groups, used in facts["buckets"]
    ]
    return Buckets(buckets, facts["too_long"], facts["lopsided"])


def _possible(plan: Buckets | Packing, batching: Batching, examples: int) -> bool:
    """Whether a plan takes only examples that there are, in batches that `batching` allows. Whether rows are as long
    as a batch says is seen where one is made: that takes no time that grows with the data.
    """
    if isinstance(plan, Packing):
        lists, shapes = [plan.members], [((plan.length,), plan.rows)]
        ends = len(plan.starts) and plan.starts[0] == 0 and plan.starts[-1] == len(plan.members)
        sound = ends and (np.diff(plan.starts) > 0).all() and plan.used >= 0
    else:
        lists = [group.members for bucket in plan.buckets for group in bucket.groups]
        shapes = [(bucket.shape, bucket.rows) for bucket in plan.buckets]
        sound = min(plan.too_long, plan.lopsided) >= 0 and all(
            b.groups and b.used >= 0 and all(len(g.members) and 1 <= g.taken <= MOST_TAKEN for g in b.groups)
            for b in plan.buckets
        )
    return bool(
        sound
        and plan.left_out >= 0
        and plan.left_out + sum(map(len, lists)) == examples
        and all(some[0] >= 0 and some[-1] < examples and (np.diff(some) > 0).all() for some in lists if len(some))
        and len({len(shape) for shape, _ in shapes}) <= 1
        and all(
            shape
            and rows >= 1
            and min(shape) >= 1
            and max(shape) <= batching.max_length
            and rows * sum(shape) <= max(batching.tokens, sum(shape))
            for shape, rows in shapes
        )
    )


def _save(plan: Buckets | Packing, folder: Path) -> None:
    if isinstance(plan, Packing):
        facts, arrays = plan._asdict(), [plan.members, plan.starts]
        del facts["members"], facts["starts"]
    else:
        arrays = [group.members for bucket in plan.buckets for group in bucket.groups]
        buckets = [(b.shape, b.rows, [group.taken for group in b.groups], b.used) for b in plan.buckets]
        facts = {**plan._asdict(), "buckets": buckets}
    with (folder / "arrays").open("wb") as stream:
        for array in arrays:
            stream.write(array.astype("<i8").tobytes())
    (folder / "plan.json").write_text(json.dumps({**facts, "sizes": [len(array) for array in arrays]}))


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

    def batches(self, seed: int, epoch: int | None) -> Sequence[Rows]:
        before = 0 if epoch is None else int(np.random.default_rng([seed, epoch]).integers(self.length))
        count = -(-(self.tokens + self.length - 1) // (self.rows * self.length))
        stretches = np.arange(self.rows) * count * self.length - before
        return Lazy(count, lambda i: Rows(stretches + i * self.length, (self.length,), self.rows, i == 0))

    def describe(self) -> Iterator[str]:
        count = len(self.batches(0, 0))
        yield f"{self.tokens:,} tokens in {self.rows} streams, {self.length} a batch: {count:,} batches an epoch"


def pad(rows: Sequence[np.ndarray], length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [count, length] and mask bool of ragged rows; filled up with empty rows. Raises `SeqlabError` for a
    row that is longer.
    """
    longest = max(map(len, rows), default=0)
    if longest > length:
        raise SeqlabError(f"a row of {longest:,} positions where there is room for {length:,}")
    ids = np.zeros((count, length), np.int32)
    mask = np.zeros((count, length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    return ids, mask
