"""Diverse beam search against plain lists. With one group it is the default beam search."""

import functools

import jax
import numpy as np
import pytest

from seqlab.laws import search as search_laws
from seqlab.search.forced import token_log_probs
from tests.oracles.search import log_softmax
from tests.subjects import subject
from tests.tables import search_table

VOCABULARY, LENGTH, EOS, ROWS = 6, 5, 2, 8
LIMITS = np.array([5, 4, 3, 1, 5, 5, 5, 2])


@functools.partial(jax.jit, static_argnames=("beam", "groups"))
def search(table, alpha, diversity, beam, groups):
    return search_table(
        table, LIMITS, eos=EOS, beam=beam, groups=groups, alpha=alpha, nbest=beam, diversity=diversity
    )


def slow(log_probs, limit, alpha, diversity, size, groups):
    """Returns (score, answer), best first, of a search in which each group has its own beam and none stops early."""
    beams: list = [[(0.0, ())] for _ in range(groups)]
    finished: list = [[] for _ in range(groups)]
    for i in range(limit):
        times = np.zeros(VOCABULARY)
        for g in range(groups):
            candidates = []
            for total, answer in beams[g]:
                for token in range(VOCABULARY):
                    if i + 1 == limit and token != EOS:
                        continue
                    gain = log_probs[i, answer[-1] if answer else 1, token]
                    candidates.append((total + gain - diversity * times[token], total + gain, (*answer, token)))
            candidates = sorted(candidates, key=lambda one: -one[0])[: 2 * size]
            for _, total, answer in candidates[:size]:
                if answer[-1] == EOS:
                    finished[g].append((total / ((6 + i + 5 - 5) / 6) ** alpha, answer))
            beams[g] = [(total, answer) for _, total, answer in candidates if answer[-1] != EOS][:size]
            for _, answer in beams[g]:
                times[answer[-1]] += 1
    every = [sorted(some, key=lambda one: -one[0])[:size] for some in finished]
    return sorted((one for some in every for one in some), key=lambda one: -one[0])


@pytest.mark.parametrize(("beam", "groups"), [(4, 1), (4, 2), (6, 3), (3, 3)])
def test_as_plain_lists(beam, groups):
    table = np.random.default_rng(4).normal(size=(ROWS, LENGTH, VOCABULARY, VOCABULARY)).astype(np.float32) * 1.5
    log_probs = log_softmax(table.astype(np.float64))
    for alpha, diversity in ((0.6, 0.7), (1.0, 3.0), (0.0, 0.0)):
        found = search(table, alpha, diversity, beam, groups)
        for row, limit in enumerate(LIMITS):
            truth = slow(log_probs[row], int(limit), alpha, diversity, beam // groups, groups)
            sizes = [int(size) for size in np.asarray(found.lengths)[row] if size]
            written = [tuple(np.asarray(found.tokens)[row, k, :size].tolist()) for k, size in enumerate(sizes)]
            assert sorted(written) == sorted(answer for _, answer in truth)
            np.testing.assert_allclose(np.asarray(found.scores)[row, : len(truth)], [s for s, _ in truth], rtol=1e-5)


def test_groups_differ():
    """The penalty separates groups that would otherwise generate the same text."""
    table = np.random.default_rng(4).normal(size=(ROWS, LENGTH, VOCABULARY, VOCABULARY)).astype(np.float32)
    firsts = [{int(tokens[0]) for tokens in np.asarray(search(table, 0.6, d, 3, 3).tokens)[0]} for d in (0.0, 20.0)]
    assert len(firsts[0]) == 1 < len(firsts[1]) == 3


def test_groups_keep_their_own_states():
    """With a model that has state, each hypothesis has the log-probability of a forced pass over its tokens."""
    s = subject("transformer", seed=2)
    requests = search_laws.requests_of(s, 6)
    found = search_laws.search(s, requests, beam=4, count=4, groups=2, diversity=1.0)
    for k in range(4):
        values = token_log_probs(s.model, s.params, requests, [results[k].ids for results in found])
        np.testing.assert_allclose([row.sum() for row in values], [r[k].log_prob for r in found], rtol=1e-5)
