"""Required phrases, against exhaustive search among the answers that contain them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqlab.laws import search as search_laws
from seqlab.search.constraints import advance_phrases, banks, next_tokens
from seqlab.search.presets import PRESETS
from seqlab.search.processors import NEVER
from seqlab.search.requests import Request, contains
from tests.oracles.search import exhaustive, log_softmax
from tests.subjects import subject
from tests.tables import search_table

VOCABULARY, LENGTH, EOS, ROWS = 4, 5, 2, 6
LIMITS = np.array([5, 4, 5, 5, 4, 3])
# One phrase, two, one that overlaps itself, two that share a token, none, and one that just fits.
PHRASES = [[(3, 1)], [(0,), (3,)], [(3, 3, 1)], [(0, 1), (1, 3)], [], [(1, 1)]]


@functools.partial(jax.jit, static_argnames=("preset", "beam", "wanted"))
def search(table, phrases, alpha, preset, beam, wanted=1):
    rules = PRESETS[preset].rules
    return search_table(table, LIMITS, eos=EOS, beam=beam, phrases=phrases, alpha=alpha, rules=rules, nbest=wanted)


def as_array(phrases):
    found = np.full((len(phrases), 2, 3), -1, np.int32)
    for row, some in enumerate(phrases):
        for column, phrase in enumerate(some):
            found[row, column, : len(phrase)] = phrase
    return jnp.asarray(found)


def table_of(seed, vocabulary=VOCABULARY):
    return np.random.default_rng(seed).normal(size=(ROWS, LENGTH, vocabulary, vocabulary)).astype(np.float32) * 2


def answers_of(found, row):
    lengths = np.asarray(found.lengths)[row]
    return [tuple(np.asarray(found.tokens)[row, k, :size].tolist()) for k, size in enumerate(lengths) if size]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), min_size=1, max_size=2),
    st.lists(st.integers(0, 2), max_size=9),
)
@example([[0, 0, 1]], [0, 0, 0, 1])
@example([[0, 1]], [0, 1, 0])
def test_what_is_begun(phrases, tokens):
    """After each token, the progress of a phrase is the longest beginning that the text ends with, or the whole
    phrase once the text contains it.
    """
    array = as_array([phrases])
    begun = jnp.zeros((1, 1, 2), jnp.int32)
    for n, token in enumerate(tokens, 1):
        begun = advance_phrases(array, begun, jnp.full((1, 1), token))
        text, partial, whole = tokens[:n], [0], 0
        for column, phrase in enumerate(phrases):
            size = len(phrase)
            if contains(text, phrase):
                expected, after = size, -1
                whole += size
            else:
                expected = max(m for m in range(min(size, n + 1)) if m == 0 or text[-m:] == phrase[:m])
                after = phrase[expected]
                partial.append(expected)
            assert int(begun[0, 0, column]) == expected
            assert int(next_tokens(array, begun)[0, 0, column]) == after
        assert int(banks(array, begun)[0, 0]) == whole + max(partial)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_beam_that_covers_the_space_is_exact(alpha):
    table = table_of(1)
    found = search(table, as_array(PHRASES), alpha, "seqlab", beam=81)
    for row, limit in enumerate(LIMITS):
        truth = exhaustive(table[row], 1, EOS, int(limit), alpha)
        best, answer = next(
            (score, answer) for score, answer in truth if all(contains(answer, p) for p in PHRASES[row])
        )
        assert answers_of(found, row)[0] == tuple(answer)
        assert len(set(answers_of(found, row))) == len(answers_of(found, row))
        assert float(found.scores[row, 0]) == pytest.approx(best, rel=1e-5)


def slow(log_probs, phrases, limit, alpha, beam):
    """Returns (score, answer), best first, of a search with places for each bank and without early stopping."""
    tokens, finished = sum(map(len, phrases)), []

    def begun(answer, phrase):
        if contains(answer, phrase):
            return len(phrase)
        return max(m for m in range(len(phrase)) if m == 0 or answer[-m:] == phrase[:m])

    def bank(answer):
        parts = [(begun(answer, phrase), len(phrase)) for phrase in phrases]
        return sum(m for m, size in parts if m == size) + max([m for m, size in parts if m < size], default=0)

    going = [(0.0, ())]
    for i in range(limit):
        ending, candidates = [], []
        for total, answer in going:
            gains = log_probs[i, answer[-1] if answer else 1]
            if bank(answer) == tokens:
                ending.append((total + gains[EOS], answer))
            looked_at = [token for token in np.argsort(-gains) if token != EOS][:beam]
            further = [phrase[m] for phrase in phrases if (m := begun(answer, phrase)) < len(phrase)]
            if i + 1 < limit:
                candidates += [(total + gains[token], (*answer, int(token))) for token in {*looked_at, *further}]
        candidates.sort(key=lambda one: -one[0])
        ahead = [total for total, answer in candidates if bank(answer) == tokens]
        for rank, (total, answer) in enumerate(sorted(ending, key=lambda one: -one[0])):
            if rank + sum(other > total for other in ahead) < beam:
                finished.append((total / ((6 + i) / 6) ** alpha, (*answer, EOS)))
        places, taken, first, rest = beam // (tokens + 1), [0] * (tokens + 1), [], []
        for total, answer in candidates:
            at = bank(answer)
            mine = beam - places * tokens if at == tokens else places
            (first if taken[at] < mine else rest).append((total, answer))
            taken[at] += 1
        going = (first + rest)[:beam]
    return sorted(finished, key=lambda one: -one[0])[:beam]


@pytest.mark.parametrize("beam", [4, 7])
def test_as_plain_lists(beam):
    table = table_of(3, vocabulary=9)
    log_probs = log_softmax(table.astype(np.float64))
    for alpha in (0.0, 1.0):
        found = search(table, as_array(PHRASES), alpha, "seqlab", beam, wanted=beam)
        for row, limit in enumerate(LIMITS):
            truth = slow(log_probs[row], PHRASES[row], int(limit), alpha, beam)
            assert answers_of(found, row) == [answer for _, answer in truth]
            np.testing.assert_allclose(np.asarray(found.scores)[row, : len(truth)], [s for s, _ in truth], rtol=1e-5)


@pytest.mark.sample(2)
@pytest.mark.parametrize("preset", [name for name, preset in PRESETS.items() if preset.rules.survivors == "refill"])
def test_phrases_are_there_whatever_the_model_says(preset):
    """Phrases are generated even if they are unlikely, and with the smallest beam: one more than they have tokens."""
    for seed in range(4):
        table = table_of(seed, vocabulary=7)
        table[:, :, :, 3] -= 9
        for row, (limit, alpha) in enumerate(zip(LIMITS, [0.0, 1.0, 0.6] * 2, strict=True)):
            found = search(
                table, as_array([PHRASES[row]] * ROWS), alpha, preset, beam=1 + sum(map(len, PHRASES[row]))
            )
            answers = answers_of(found, row)
            assert answers
            assert len(set(answers)) == len(answers)
            assert all(contains(answer, phrase) for answer in answers for phrase in PHRASES[row])
            truth = {tuple(a): s for s, a in exhaustive(table[row], 1, EOS, int(limit), 0.0)}
            for answer, total in zip(answers, np.asarray(found.log_probs)[row], strict=False):
                if answer[-1] == EOS:
                    assert float(total) == pytest.approx(truth[answer], rel=1e-5)


def test_beside_sentences_that_must_have_nothing():
    """In a batch with constraints, prefixes count, and a sentence without constraints has the same result
    as alone.
    """
    plain = search_laws.requests_of(subject("transformer", seed=2), 8)[:4]
    asked = [
        request._replace(**more)
        for request, more in zip(
            plain, ({"phrases": [(5, 5), (6,)]}, {"prefix": (4, 4)}, {}, {"prefix": (6,), "phrases": [(6, 3)]}),
            strict=True,
        )
    ]  # fmt: skip
    find = functools.partial(search_laws.search, subject("transformer", seed=2), beam=5, count=3)
    mixed, alone = find(asked), find([asked[2]])
    assert [r.ids for r in mixed[2]] == [r.ids for r in alone[0]]
    assert all(contains(r.ids, (5, 5)) and contains(r.ids, (6,)) for r in mixed[0])
    assert all(r.ids[:2] == [4, 4] for r in mixed[1])
    assert all(r.ids[0] == 6 and contains(r.ids, (6, 3)) for r in mixed[3])
    assert all(map(len, mixed))


def test_what_cannot_be_is_refused():
    request = search_laws.requests_of(subject("transformer", seed=2), 4)[0]
    find = functools.partial(search_laws.search, subject("transformer", seed=2))

    def refused(match, beam=5, more=None, **told):
        with pytest.raises(ValueError, match=match):
            find([request._replace(number=7, **told)], beam=beam, **(more or {}))

    refused("line 7 requires phrases of 3 tokens in total: set --beam to 4", beam=3, phrases=[(3, 4, 5)])
    refused("line 7 requires 4 tokens and EOS, but has room for 4", phrases=[(3, 4, 5, 6)])
    refused("line 7 requires a forbidden token: change --forbid", phrases=[(3,)], more={"forbidden": (3,)})
    refused("no --groups", beam=4, phrases=[(3,)], more={"groups": 2})
    refused("a preset that refills the beam", phrases=[(3,)], more={"rules": PRESETS["marian"].rules})
    refused("leave out sample", more={"sample": 1, "coverage": 0.1})
    refused("required phrases need --beam 2", phrases=[(3,)], more={"sample": 1})


def test_a_prefix_is_paid_for():
    """Greedy search, beam search and samples begin with the prefix, whose log-probability is in the sum."""
    from seqlab.search.forced import token_log_probs

    prefix = (4, 6, 6)
    s = subject("transformer", seed=2)
    requests = [request._replace(prefix=prefix, number=3) for request in search_laws.requests_of(s, 8)]
    for more in ({"beam": 1}, {"beam": 3, "count": 3}, {"beam": 3, "count": 3, "sample": 1}):
        found = search_laws.search(s, requests, **more)
        for request, results in zip(requests, found, strict=True):
            assert results
            for result in results:
                assert tuple(result.ids[:3]) == prefix
                (values,) = token_log_probs(s.model, s.params, [request], [result.ids])
                assert result.log_prob == pytest.approx(float(values.sum()), rel=1e-5)
                assert result.score > NEVER


def test_requests_do_not_depend_on_how_phrases_are_given():
    request: Request = search_laws.requests_of(subject("transformer", seed=2), 8)[1]
    find = functools.partial(search_laws.search, subject("transformer", seed=2), beam=4)
    once, twice = find([request._replace(phrases=[(5, 3)]), request._replace(phrases=[(5, 3), (5, 3)])])
    assert once == twice
