"""The batch plan."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seqlab.batching import _edges, describe, epoch_batches, make_plan
from seqlab.config import Batching


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(1, 5))
def test_edges_pad_the_least(lengths, buckets):
    lengths = np.array(lengths)

    def padded(edges):
        return np.array(edges)[np.searchsorted(edges, lengths)].sum()

    sizes = np.unique(lengths)
    inner = min(buckets, len(sizes)) - 1
    best = min(padded(sorted([*chosen, sizes[-1]])) for chosen in itertools.combinations(sizes[:-1], inner))
    found = _edges(lengths, buckets)
    assert len(found) <= buckets
    assert padded(found) == best


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60),
    st.integers(1, 200),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_every_batch_fits(lengths, tokens, buckets, epoch):
    lengths = np.array(lengths)
    plan = make_plan(lengths, Batching(tokens=tokens, buckets=buckets, max_length=25, max_ratio=4.0))
    batches = epoch_batches(plan, 3, epoch)
    seen = np.concatenate([rows.indices for rows in batches]) if batches else np.zeros(0, int)
    longest, shortest = lengths.max(1), lengths.min(1)
    kept = (longest <= 25) & (longest <= 4 * shortest)
    assert sorted(seen.tolist()) == np.flatnonzero(kept).tolist()
    assert plan.too_long + plan.lopsided == (~kept).sum()
    assert len(batches) == len(plan)
    for rows in batches:
        assert len(rows.indices) <= rows.rows
        assert rows.rows == 1 or rows.rows * sum(rows.shape) <= tokens
        assert (lengths[rows.indices] <= rows.shape).all()
    assert len({rows.shape for rows in batches}) <= buckets


def test_what_is_left_out_is_told():
    lengths = np.array([[3, 4], [40, 41], [20, 2]])
    plan = make_plan(lengths, Batching(max_length=30, max_ratio=9.0))
    told = "\n".join(describe(plan, lengths))
    assert "left out: 1 examples longer" in told
    assert "left out: 1 pairs more lopsided" in told


def test_nothing_is_short_enough():
    plan = make_plan(np.array([[50, 50]]), Batching(max_length=10))
    assert (len(plan), epoch_batches(plan, 0, 0)) == (0, [])
