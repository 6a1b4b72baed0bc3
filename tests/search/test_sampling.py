"""Samples: their frequencies against the enumerated distribution, and the values that they depend on."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from seqlab.laws import search as search_laws
from seqlab.search.decoder import Decoder, Span
from seqlab.search.forced import token_log_probs
from seqlab.search.processors import NEVER, History, temperature, top_k, top_p
from seqlab.search.requests import RequestBatch
from seqlab.search.sampling import sample
from seqlab.search.sequences import begin_sequences
from seqlab.types import Tokens
from tests.subjects import subject

VOCABULARY, EOS, LIMIT, SAMPLES = 4, 2, 3, 4000


def kept(probabilities, options):
    """Returns the distribution [V] of draws: probabilities after temperature, top-k and top-p, by sorting."""
    p = probabilities ** (1 / options.get("temperature", 1.0))
    order = np.argsort(-p)
    p /= p.sum()
    if options.get("top_k"):
        p[order[options["top_k"] :]] = 0
        p /= p.sum()
    if "top_p" in options:
        needed = next(n for n in range(1, VOCABULARY + 1) if p[order[:n]].sum() >= options["top_p"])
        p[order[needed:]] = 0
    return p / p.sum()


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.7}, {"temperature": 1.5, "top_k": 3, "top_p": 0.8}],
)
def test_frequencies(options):
    table = np.random.default_rng(1).normal(size=(LIMIT, VOCABULARY, VOCABULARY)).astype(np.float32)

    def step(state, token, t):
        return jnp.asarray(table)[t, token], state

    search = begin_sequences((), jnp.ones(1, int), length=LIMIT, hypotheses=SAMPLES)
    settings = search_laws.settings_of(beam=1, length="none", sample=5, **options)
    row = np.ones(1, int)
    requests = RequestBatch(None, Tokens(row[:, None], row[:, None] > 0), LIMIT * row, row, 0 * row)
    found = sample(
        Decoder(step, lambda state, parents: state), search, requests, Span(0, LIMIT, 0, LIMIT),
        settings.static, settings.weights, jnp.int32(settings.seed),
    ).results()  # fmt: skip
    written = [
        tuple(row[:n].tolist())
        for row, n in zip(np.asarray(found.tokens)[0], np.asarray(found.lengths)[0], strict=True)
    ]
    others = [token for token in range(VOCABULARY) if token != EOS]
    expected = {}
    for n in range(LIMIT):
        for head in itertools.product(others, repeat=n):
            probability, previous = 1.0, 1
            for t, token in enumerate((*head, EOS)):
                step_probabilities = np.exp(table[t, previous].astype(np.float64))
                step_probabilities = kept(step_probabilities / step_probabilities.sum(), options)
                probability *= 1.0 if t == LIMIT - 1 else step_probabilities[token]
                previous = token
            expected[(*head, EOS)] = probability
    assert sum(expected.values()) == pytest.approx(1)
    assert {answer for answer in written if expected[answer] == 0} == set()
    common = [answer for answer, p in expected.items() if p * SAMPLES >= 5]
    rare = 1 - sum(expected[answer] for answer in common)
    counts = [written.count(answer) for answer in common]
    counts, shares = [*counts, SAMPLES - sum(counts)], [*(expected[answer] for answer in common), rare]
    if rare * SAMPLES < 1:
        counts, shares = counts[:-1], np.array(shares[:-1]) / sum(shares[:-1])
    assert chisquare(counts, np.array(shares) * sum(counts)).pvalue > 1e-3


@pytest.mark.parametrize("processor", [top_k(2), top_p(0.9)])
def test_what_cannot_be_stays_out(processor):
    scores = jnp.array([[[1.0, NEVER, 0.5, NEVER]]])
    found = np.asarray(processor(scores, History(jnp.zeros((1, 1, 3), int), jnp.int32(0))))
    assert (found[0, 0, [1, 3]] <= NEVER / 2).all()
    assert found[0, 0, 0] == 1


@pytest.mark.parametrize("value", [1e-3, 1e-9, 1e-38, 1e-44])
def test_a_small_temperature_is_greedy(value):
    """For logits and for log-probabilities, which are all negative."""
    scores = jnp.array([[[1.0, NEVER, 1.5, -40.0]], [[-3.0, NEVER, -2.0, -50.0]]])
    found = np.asarray(temperature(value)(scores, History(jnp.zeros((2, 1, 3), int), jnp.int32(0))))
    assert np.isfinite(found).all()
    assert (found.argmax(-1) == 2).all()
    assert (found[..., [0, 2, 3]] > NEVER / 2).all()
    assert (found[..., 1] <= NEVER / 2).all()
    np.testing.assert_allclose(jax.nn.softmax(found)[..., 2], 1.0)


def test_a_sample_depends_on_its_number_and_its_seed():
    s = subject("bahdanau", seed=3)
    requests = [request._replace(number=i) for i, request in enumerate(search_laws.requests_of(s, 6))]

    def drawn(some, seed=1, **options):
        found = search_laws.search(s, some, beam=3, count=3, sample=seed, **options)
        return [[r.ids for r in results] for results in found], found

    together, found = drawn(requests)
    assert drawn(requests)[0] == together
    assert drawn(requests[::-1])[0][::-1] == together
    assert drawn(requests[1:2])[0] == together[1:2]
    assert drawn(requests, seed=2)[0] != together
    again = [requests[1]._replace(number=number) for number in (0, 0, 1)]
    assert drawn(again)[0][0] == drawn(again)[0][1] != drawn(again)[0][2]
    for results in (found, drawn(requests, forbidden=(3,), temperature=0.5, top_k=4)[1]):
        for k in range(3):
            values = token_log_probs(s.model, s.params, requests, [some[k].ids for some in results])
            np.testing.assert_allclose([row.sum() for row in values], [r[k].log_prob for r in results], rtol=1e-5)
        assert all(some == sorted(some, key=lambda r: -r.score) for some in results)
