"""Utilities of minimum Bayes risk against sacrebleu, by sentence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from seqlab.decoding.decoded_text import DecodedText
from seqlab.decoding.risk import UTILITIES, expected_utility, least_risk

SCORERS = {"chrf": CHRF(), "bleu": BLEU(effective_order=True)}
WORDS = st.lists(st.sampled_from(["a", "b", "the", "cat.", "Ein", "日本", "e\u0301", "1,000", "&amp;"]), max_size=9)


@pytest.mark.parametrize("metric", sorted(UTILITIES))
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(WORDS.map(" ".join) | st.text(max_size=12), min_size=1, max_size=5))
def test_as_sacrebleu(metric, texts):
    truth = [[SCORERS[metric].sentence_score(text, [other]).score for other in texts] for text in texts]
    np.testing.assert_allclose(UTILITIES[metric](texts), truth, rtol=0, atol=1e-9)
    np.testing.assert_allclose(expected_utility(metric, texts), np.mean(truth, axis=1), rtol=0, atol=1e-9)


def test_no_samples():
    assert least_risk("chrf", []) == []


def test_the_sample_that_is_most_like_all():
    texts = ["a dog runs", "the dog runs home", "the dog runs home", "a dog ran home", "zzz"]
    ranked = least_risk("chrf", [DecodedText(text, 0.0, 0.0) for text in texts])
    utility = dict(zip(texts, expected_utility("chrf", texts), strict=True))
    assert [(one.text, one.score) for one in ranked] == sorted(utility.items(), key=lambda pair: -pair[1])
    assert ranked[0].text == "the dog runs home"
