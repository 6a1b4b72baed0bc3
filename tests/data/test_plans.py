"""Batch plans."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqlab.config import Batching
from seqlab.data.buckets import make_buckets
from seqlab.data.packing import make_packing, row_starts
from seqlab.data.padding import pad
from seqlab.data.plan_cache import load_or_make_plan
from seqlab.data.plans import shuffled
from seqlab.data.streams import Streams
from seqlab.system.errors import SeqlabError


def padded(shapes, lengths):
    """Returns the number of positions if each example takes the smallest shape that it fits into."""
    return sum(
        min((sum(s) for s in shapes if all(a <= b for a, b in zip(one, s, strict=True))), default=np.inf)
        for one in lengths
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=20), st.integers(1, 4))
def test_no_exchange_of_one_shape_pads_less(lengths, buckets):
    found = [bucket.shape for bucket in make_buckets(np.array(lengths), Batching(buckets=buckets)).buckets]
    assert len(found) <= buckets
    best = padded(found, lengths)
    assert best <= padded([np.max(lengths, axis=0)], lengths) < np.inf
    for others in itertools.combinations(found, min(len(found), buckets - 1)):
        for other in itertools.product(range(1, 7), repeat=2):
            assert padded([*others, other], lengths) >= best


@pytest.mark.parametrize("columns", [1, 2])
def test_shapes_pad_hardly_more_than_the_best(columns):
    """Compares with all choices of three shapes, on random corpora."""
    rng = np.random.default_rng(0)
    ours = least = 0
    for _ in range(20):
        lengths = np.minimum(rng.poisson(4, size=(30, 1)) + rng.poisson(1, size=(30, columns)) + 1, 8)
        ours += padded([b.shape for b in make_buckets(lengths, Batching(buckets=3)).buckets], lengths.tolist())
        grid = itertools.product(*(np.unique(column).tolist() for column in lengths.T))
        tables = np.array([[sum(s) if np.all(one <= s) else np.inf for one in lengths] for s in grid])
        pairs = itertools.combinations(tables[:-1], 2)
        least += min(np.minimum(np.minimum(a, b), tables[-1]).sum() for a, b in pairs)
    assert least <= ours < 1.01 * least


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60),
    st.integers(1, 200),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_every_batch_fits(lengths, tokens, buckets, epoch):
    lengths = np.array(lengths)
    plan = make_buckets(lengths, Batching(tokens=tokens, buckets=buckets, max_length=25, max_ratio=4.0))
    longest, shortest = lengths.max(1), lengths.min(1)
    kept = (longest <= 25) & (longest <= 4 * shortest)
    assert plan.left_out == plan.too_long + plan.lopsided == (~kept).sum()
    for batches in (plan.batches(3, epoch), plan.batches(3, None)):
        seen = np.concatenate([batch_plan.indices for batch_plan in batches]) if len(batches) else np.zeros(0, int)
        assert sorted(seen.tolist()) == np.flatnonzero(kept).tolist()
        for batch_plan in batches:
            assert len(batch_plan.indices) <= batch_plan.row_count
            assert batch_plan.row_count == 1 or batch_plan.row_count * sum(batch_plan.shape) <= tokens
            assert (lengths[batch_plan.indices] <= batch_plan.shape).all()
        assert len({batch_plan.shape for batch_plan in batches}) <= buckets


def test_what_is_left_out_is_told():
    lengths = np.array([[3, 4], [40, 41], [20, 2]])
    told = "\n".join(make_buckets(lengths, Batching(max_length=30, max_ratio=9.0)).describe())
    assert "left out: 1 examples longer" in told
    assert "left out: 1 pairs more lopsided" in told


def test_nothing_is_short_enough():
    plan = make_buckets(np.array([[50, 50]]), Batching(max_length=10))
    assert (len(plan.batches(0, 0)), list(plan.batches(0, None))) == (0, [])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 99))
def test_shuffled_is_a_permutation(count, seed):
    found = shuffled(np.arange(count), count, seed)
    assert sorted(found.tolist()) == list(range(count))
    some = np.arange(0, count, 7)
    assert np.array_equal(shuffled(some, count, seed), found[some])


def test_shuffled_goes_everywhere():
    """Over many seeds, each number takes each position about equally often."""
    counts = np.zeros((7, 7))
    for seed in range(2100):
        counts[np.arange(7), shuffled(np.arange(7), 7, seed)] += 1
    assert 200 < counts.min() <= counts.max() < 420


@pytest.mark.parametrize("kind", ["buckets", "packing"])
def test_a_kept_plan_is_the_same(tmp_path, kind):
    lengths = np.random.default_rng(0).integers(1, 40, size=(200, 2))
    batching = Batching(tokens=300, buckets=4, max_length=35)
    made = []

    def make():
        made.append(1)
        if kind == "packing":
            return make_packing(lengths[:, 0], 35, 4)
        return make_buckets(lengths, batching, ((150, 0.4), (50, 0.6)))

    first, again = (load_or_make_plan(tmp_path / "plan", make, batching, 200) for _ in range(2))
    assert len(made) == 1
    assert list(first.describe()) == list(again.describe()) == list(make().describe())
    for epoch in (0, 3, None):
        for ours, theirs, new in zip(*(p.batches(1, epoch) for p in (first, again, make())), strict=True):
            assert ours.indices.tolist() == theirs.indices.tolist() == new.indices.tolist()
            assert ours[1:4] == theirs[1:4] == new[1:4]
            np.testing.assert_array_equal(ours.examples_per_row, new.examples_per_row)
            np.testing.assert_array_equal(ours.examples_per_row, theirs.examples_per_row)


def test_a_row_that_is_too_long():
    with pytest.raises(SeqlabError, match="a row of 5 positions does not fit into 4"):
        pad([np.ones(2, int), np.ones(5, int)], 4, 3)


def test_a_mixture_keeps_its_rates():
    """Each part contributes the share given by its rate, and its examples occur equally often in the long run."""
    lengths = np.full((90, 1), 5)
    plan = make_buckets(lengths, Batching(tokens=50, buckets=1), ((60, 1.0), (30, 3.0)))
    seen = np.zeros(90, int)
    for epoch in range(8):
        indices = np.concatenate([batch_plan.indices for batch_plan in plan.batches(1, epoch)])
        assert len(indices) == 90
        assert (indices < 60).sum() == 22
        seen += np.bincount(indices, minlength=90)
    assert set(seen[:60]) == {2, 3}
    assert set(seen[60:]) == {18, 19}


def test_rates_are_of_what_is_kept():
    """Rates apply to usable examples: two parts of 100 at equal rates, one with 90% too long; then a part of one
    example.
    """
    lengths = np.array([[5]] * 10 + [[99]] * 90 + [[5], [6]] * 50)
    plan = make_buckets(lengths, Batching(buckets=2, max_length=10), ((100, 0.5), (100, 0.5)))
    taken = [[(group.members[0] < 100, group.taken) for group in bucket.groups] for bucket in plan.buckets]
    assert taken == [[(True, 55), (False, 28)], [(False, 28)]]
    lonely = make_buckets(lengths, Batching(buckets=2, max_length=10), ((1, 0.001), (199, 0.999)))
    seen = np.concatenate([batch_plan.indices for batch_plan in lonely.batches(0, 0)])
    assert (seen == 0).sum() == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=50),
    st.integers(5, 14),
    st.integers(1, 4),
    st.sampled_from([None, 0, 2]),
)
def test_packed_rows_fit(sizes, length, rows, epoch):
    sizes = np.array(sizes)
    plan = make_packing(sizes, length, rows)
    seen = []
    for batch in plan.batches(2, epoch):
        assert batch.row_count == rows
        starts = row_starts(sizes[batch.indices], length)
        assert len(starts) <= rows
        for members in np.split(batch.indices, starts[1:]):
            assert sizes[members].sum() <= length
        seen += batch.indices.tolist()
    assert sorted(seen) == np.flatnonzero(sizes <= length).tolist()
    assert plan.left_out == len(sizes) - len(seen)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 5))
def test_streams_go_on(tokens, length, rows):
    plan = Streams(tokens, length, rows)
    for epoch in (None, 0, 1):
        batches = list(plan.batches(0, epoch))
        for before, after in itertools.pairwise(batches):
            assert (after.indices - before.indices == length).all()
        places = np.concatenate([(batch.indices[:, None] + np.arange(length)).ravel() for batch in batches])
        assert sorted(places[(places >= 0) & (places < tokens)].tolist()) == list(range(tokens))
