"""Search against exhaustive search on a tiny vocabulary."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.config import MAX_POSITIONS
from seqlab.laws import search as search_laws
from seqlab.search.candidates import top_k
from seqlab.search.forced import token_log_probs
from seqlab.search.generate import generate
from seqlab.search.presets import Rules
from seqlab.search.processors import NEVER
from seqlab.search.requests import Request, Shape, collate, round_up
from seqlab.search.searcher import make_mesh, make_searcher, whole_search
from seqlab.types import Generator
from tests.oracles.search import exhaustive
from tests.subjects import subject
from tests.tables import search_table

VOCABULARY, LENGTH, EOS, ROWS = 4, 4, 2, 6
LIMITS = np.array([4, 3, 2, 1, 4, 4])
GENERATORS = [
    name for name in catalogue.names("models") if isinstance(catalogue.module("models", name).TINY, Generator)
]


@functools.partial(jax.jit, static_argnames=("beam", "wanted", "stop"))
def search(table, limit, alpha, beam, wanted=1, stop="optimal"):
    return search_table(table, limit, eos=EOS, beam=beam, alpha=alpha, nbest=wanted, rules=Rules(stop=stop))


def tables(kind: str) -> np.ndarray:
    random = np.random.default_rng(5)
    logits = random.normal(size=(ROWS, LENGTH, VOCABULARY, VOCABULARY)).astype(np.float32) * 2
    if kind == "ties":
        return np.round(logits / 2)
    if kind == "eos at once":
        logits[:, 0, :, EOS] += 8
    if kind == "no eos":
        logits[..., EOS] -= 12
    return logits


@pytest.mark.parametrize("kind", ["random", "ties", "eos at once", "no eos"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.5, -0.5])
def test_a_beam_that_covers_the_space_is_exact(kind, alpha):
    table = tables(kind)
    # 9 hypotheses of two tokens have 36 continuations: with a beam of 36, every one that ends may finish.
    found = search(table, LIMITS, alpha, beam=36, wanted=3)
    for row, limit in enumerate(LIMITS):
        truth = exhaustive(table[row], 1, EOS, int(limit), alpha)
        scores = np.asarray(found.scores)[row, : min(3, len(truth))]
        expected = np.array([score for score, _ in truth[:3]])
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        by_answer = {tuple(answer): score for score, answer in truth}
        for k, score in enumerate(scores):
            answer = tuple(np.asarray(found.tokens)[row, k, : int(found.lengths[row, k])].tolist())
            assert by_answer[answer] == pytest.approx(score, abs=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["random", "ties"])
@pytest.mark.parametrize("beam", [1, 2, 3, 5])
def test_no_beam_beats_exhaustive_search(kind, beam):
    table = tables(kind)
    found = search(table, LIMITS, 0.6, beam=beam)
    for row, limit in enumerate(LIMITS):
        truth = exhaustive(table[row], 1, EOS, int(limit), 0.6)
        by_answer = {tuple(answer): score for score, answer in truth}
        answer = tuple(np.asarray(found.tokens)[row, 0, : int(found.lengths[row, 0])].tolist())
        assert by_answer[answer] == pytest.approx(float(found.scores[row, 0]), rel=1e-5)
        assert len(answer) <= limit
        assert float(found.scores[row, 0]) <= truth[0][0] + 1e-5


def test_hypotheses_that_do_not_exist_are_empty():
    found = search(tables("random"), LIMITS, 0.6, beam=3, wanted=3)
    assert np.asarray(found.lengths)[3].tolist() == [1, 0, 0]  # a limit of one token allows EOS alone
    assert (np.asarray(found.scores)[3, 1:] <= NEVER).all()


def test_first_stops_at_the_first_end():
    """If a longer answer is likelier, "first" stops with the short one, and "optimal" continues."""
    table = np.zeros((ROWS, LENGTH, VOCABULARY, VOCABULARY), np.float32)
    table[:, 0, :, 3] = 1.0  # the best first token is 3, and EOS, second best, is among the K best
    table[:, 0, :, EOS] = 0.9
    table[:, 1:, :, EOS] = 9.0
    limit = np.full(ROWS, LENGTH)
    first, optimal = (search(table, limit, 2.5, beam=2, stop=stop) for stop in ("first", "optimal"))
    assert np.asarray(first.lengths)[:, 0].tolist() == [1] * ROWS
    assert np.asarray(optimal.lengths)[:, 0].tolist() == [2] * ROWS
    assert (np.asarray(optimal.scores)[:, 0] > np.asarray(first.scores)[:, 0]).all()


def test_optimal_waits_for_what_a_long_answer_may_come_to():
    """An immediate EOS beats every answer of two tokens, but not the certain answer of four tokens."""
    table = np.full((ROWS, LENGTH, VOCABULARY, VOCABULARY), -20.0, np.float32)
    table[:, :, :, 3] = 0.0
    table[:, 0, :, EOS] = 0.2
    table[:, 3, :, EOS] = 20.0
    found = search(table, np.full(ROWS, LENGTH), 1.0, beam=2)
    assert np.asarray(found.lengths)[:, 0].tolist() == [4] * ROWS


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", GENERATORS)
def test_alone_and_in_a_batch(name):
    """The text of a sentence does not depend on the other sentences, the order of requests or the devices."""
    s = subject(name, seed=3)
    requests = search_laws.requests_of(s, 5)
    settings = search_laws.settings_of(beam=3, count=2)
    search = functools.partial(generate, s.model, s.params, settings=settings)
    together = search(requests)
    assert [[r.ids for r in results] for results in search(requests[::-1])[::-1]] == [
        [r.ids for r in results] for results in together
    ]
    one = search(requests, devices=jax.devices()[:1])  # all other searches use eight devices
    assert [[r.ids for r in results] for results in one] == [[r.ids for r in results] for results in together]
    for request, results in list(zip(requests, together, strict=True))[:2]:
        (alone,) = search([request])
        assert [r.ids for r in alone] == [r.ids for r in results]
        np.testing.assert_allclose([r.score for r in alone], [r.score for r in results], rtol=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_forced_pass_gives_the_score_of_the_search(name):
    """The prompts and the answers have unequal lengths."""
    s = subject(name, seed=3)
    requests = search_laws.requests_of(s, 5)
    found = generate(s.model, s.params, requests, search_laws.settings_of(beam=3, count=2))
    for k in range(2):
        values = token_log_probs(s.model, s.params, requests, [results[k].ids for results in found])
        assert [len(row) for row in values] == [len(results[k].ids) for results in found]
        np.testing.assert_allclose([row.sum() for row in values], [r[k].log_prob for r in found], rtol=1e-5)


def test_nothing_asked_nothing_found():
    s = subject("transformer_lm")
    assert generate(s.model, s.params, [], search_laws.settings_of()) == []
    with pytest.raises(ValueError, match="beam of 2"):
        search_laws.settings_of(beam=2, count=3)


def test_few_shapes():
    sizes = {round_up(n, 2048) for n in range(1, 1025)}
    assert len(sizes) <= 16
    assert all(n <= round_up(n, 2048) < max(2 * n, 17) for n in range(1, 1025))


@pytest.mark.parametrize("shape", [(3, 5), (2, 2, 700), (1, 1000), (2, 3, 64 * 9 + 1)])
@pytest.mark.parametrize("k", [1, 3])
def test_top_k_in_two_stages(shape, k):
    """Covers values with many ties, and highest values after the last block."""
    random = np.random.default_rng(0)
    for values in (random.normal(size=shape), random.integers(0, 3, shape), np.arange(np.prod(shape)).reshape(shape)):
        found = top_k(jnp.float32(values), k)
        for one, other in zip(found, jax.lax.top_k(jnp.float32(values), k), strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["transformer", "recurrent_lm"])
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("positions", [MAX_POSITIONS, 2000])
def test_sentences_that_leave_change_nothing(name, beam, positions):
    """Some sentences are done long before others, which continue in joined batches, and the room grows twice. The
    results equal those of a single search to the end.
    """
    s = subject(name, seed=3)
    limits = [40, 3, 2, 5, 1, 33, 2, 2, 6, 17, 3, 4] + [7, 2, 21, 9, 30, 13, 5] * 4
    few = search_laws.requests_of(s, 1)
    requests = [few[i % len(few)]._replace(limit=limit, minimum=limit - 1) for i, limit in enumerate(limits)]
    told = []
    settings = search_laws.settings_of(beam=beam, count=beam, batch_tokens=positions)
    found = generate(s.model, s.params, requests, settings, devices=jax.devices()[:1], progress=told.append)
    assert sum(told) == len(requests)
    assert len(told) > 1  # not all at once
    searcher = make_searcher(s.model, settings.static, make_mesh(jax.devices()[:1]))
    prompt = max(len(request.prompt) for request in requests)
    source = 0 if requests[0].source is None else max(len(request.source) for request in requests)
    asked = collate(requests, len(requests), Shape(source, prompt, 40))
    whole = whole_search(searcher, s.params, asked, settings.weights, 0, 40)
    for row, results in enumerate(found):
        for k, result in enumerate(results):
            size = int(whole.lengths[row, k])
            assert result.ids == np.asarray(whole.tokens)[row, k, :size].tolist()
            assert result.score == pytest.approx(float(whole.scores[row, k]), rel=1e-4)


@pytest.mark.parametrize("fields", [{}, {"beam": 4, "groups": 2}, {"beam": 1}, {"beam": 3, "sample": 1}])
def test_steps_are_compiled_once(fields):
    """A step preserves all types; otherwise the next step would be compiled again."""
    s = subject("tcn_lm")
    asked = collate([Request(None, [1], 3)], 1, Shape(0, 1, 3))
    settings = search_laws.settings_of(**fields)
    searcher = make_searcher(s.model, settings.static, make_mesh(jax.devices()[:1]))

    def leaves():
        rows = searcher.begin(s.params, asked, length=3)
        after = searcher.advance(s.params, rows, 0, 1, settings.weights, 0, prompt_end=0, max_length=3)
        return jax.tree.leaves(rows), jax.tree.leaves(after)

    before, after = jax.eval_shape(leaves)
    assert [(x.shape, x.dtype, x.weak_type) for x in before] == [(x.shape, x.dtype, x.weak_type) for x in after]
