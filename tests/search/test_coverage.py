"""The coverage penalty, and alignments, against the attention of a forced pass."""

import functools

import jax
import numpy as np
import pytest

from seqlab.decoding.alignments import word_links
from seqlab.decoding.decoded_text import Alignment
from seqlab.laws import search as search_laws
from seqlab.search.ensemble import Ensemble
from seqlab.search.forced import most_attended
from seqlab.search.generate import generate
from seqlab.search.processors import NEVER
from seqlab.types import Tokens
from tests.subjects import subject

ATTENTIVE = ("transformer", "bahdanau", "conv_seq2seq", "hierarchical_seq2seq")


@functools.partial(jax.jit, static_argnums=0)
def attention_weights(model, params, inputs, prefix):
    return model.apply(params, inputs, prefix, method=type(model).attention_weights)


def padded(ids):
    row = np.zeros((1, 8), np.int32)
    row[0, : len(ids)] = ids
    return row, np.arange(8)[None] < len(ids)


def attention_of(s, request, ids):
    """Returns the attention [T S] of the last layer, averaged over its heads, for a single sentence in arrays of one
    shape.
    """
    prefix = [*request.prompt, *ids[:-1]]
    sentences, _ = padded(request.sentences or [0] * len(request.source))
    inputs = Tokens(*padded(request.source), sentences=sentences)
    weights = np.asarray(attention_weights(s.model, s.params, inputs, Tokens(*padded(prefix))))
    return weights[-1, 0].mean(0)[len(request.prompt) - 1 : len(prefix), : len(request.source)]


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ATTENTIVE)
def test_the_score_is_the_attention_s(name):
    s = subject(name, seed=3)
    requests = search_laws.requests_of(s, 6)[:2]
    found = search_laws.search(s, requests, beam=3, count=3, alpha=0.6, coverage=0.4)
    lower = 0
    for request, results in zip(requests, found, strict=True):
        assert len(results) > 1
        for result in results:
            covered = np.minimum(attention_of(s, request, result.ids).sum(0), 1.0)
            expected = result.log_prob / ((5 + len(result.ids)) / 6) ** 0.6 + 0.4 * np.log(covered).sum()
            assert result.score == pytest.approx(expected, rel=1e-4)
            lower += bool((covered < 0.999).any())
    assert lower


def test_of_an_ensemble_the_mean():
    members = [subject(name, seed=3) for name in ("transformer", "bahdanau")]
    requests = search_laws.requests_of(members[0], 5)[:2]
    model, params = Ensemble(tuple(s.model for s in members)), tuple(s.params for s in members)
    found = generate(model, params, requests, search_laws.settings_of(beam=3, coverage=0.4))
    for request, (result,) in zip(requests, found, strict=True):
        attention = np.mean([attention_of(s, request, result.ids) for s in members], axis=0)
        covered = np.minimum(attention.sum(0), 1.0)
        expected = result.log_prob / ((5 + len(result.ids)) / 6) ** 0.6 + 0.4 * np.log(covered).sum()
        assert result.score == pytest.approx(expected, rel=1e-4)
        assert result.score > NEVER


def test_models_without_attention_are_refused():
    s = subject("sutskever")
    with pytest.raises(ValueError, match="needs a model with attention"):
        search_laws.search(s, search_laws.requests_of(s, 4), coverage=0.1)


@pytest.mark.parametrize("name", ["transformer", "bahdanau"])
def test_where_a_text_looks(name):
    s = subject(name, seed=3)
    requests = search_laws.requests_of(s, 6)[:3]
    answers = [[3, 5, 2], [2], [4, 4, 6, 3, 2]]
    found = most_attended(s.model, s.params, requests, answers)
    for request, answer, (best, shares) in zip(requests, answers, found, strict=True):
        attention = attention_of(s, request, answer)
        assert attention.shape == (len(answer), len(request.source))
        np.testing.assert_allclose(shares, attention.max(-1), rtol=1e-5)
        np.testing.assert_allclose(attention[np.arange(len(answer)), best], attention.max(-1), rtol=1e-5)


def test_words_are_linked():
    """The piece "▁" begins a word, also if it is a token by itself. EOS belongs to no word."""
    source = ["▁a", "b", "▁", "c", "▁d", "</s>"]
    target = ["▁x", "y", "▁z", "▁", "▁w", "</s>"]
    assert word_links(Alignment(source, target, [0, 1, 3, 0, 5, 4], [1.0] * 6)) == [(0, 0), (1, 1)]
    assert word_links(Alignment(["a", "</s>"], ["b", "c", "</s>"], [0, 0, 1], [1.0] * 3)) == [(0, 0)]
    # Accepted at the maximum length without EOS: the last token belongs to a word.
    assert word_links(Alignment(["a", "</s>"], ["▁b", "▁c"], [0, 0], [1.0] * 2)) == [(0, 0), (0, 1)]
