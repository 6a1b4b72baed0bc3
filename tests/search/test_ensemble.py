"""Ensembles: the score of a text equals the combined scores of forced passes of the members."""

import jax
import numpy as np
import pytest

from seqlab.laws import search as search_laws
from seqlab.search.ensemble import Ensemble
from seqlab.search.forced import token_log_probs
from seqlab.search.generate import generate
from seqlab.search.presets import Rules
from tests.subjects import subject

EOS = search_laws.EOS
RAW = Rules(renormalize=False)  # so that scores equal those of a forced pass even if EOS is forbidden


def written(model, params, requests, **options):
    settings = search_laws.settings_of(beam=3, count=2, **options)
    return generate(model, params, requests, settings, devices=jax.devices()[:1])


@pytest.mark.parametrize("mean", ["probabilities", "log_probabilities"])
def test_the_same_model_twice_is_that_model(mean):
    s = subject("transformer", seed=3)
    requests = [request._replace(minimum=3) for request in search_laws.requests_of(s, 5)]
    options = {"forbidden": (5,)}
    alone = written(s.model, s.params, requests, **options)
    for several in ((s.model,), (s.model, s.model)):
        found = written(Ensemble(several, mean), (s.params,) * len(several), requests, **options)
        assert [[r.ids for r in results] for results in found] == [[r.ids for r in results] for results in alone]
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose([r.score for r in ours], [r.score for r in theirs], rtol=1e-5)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("mean", "weight", "seed"),
    [
        ("probabilities", 0.0, None),
        ("log_probabilities", 0.0, None),
        ("probabilities", 0.4, None),
        ("log_probabilities", 0.4, 1),
    ],
)
def test_scores_are_those_of_forced_passes(mean, weight, seed):
    """Tests an ensemble of two architectures, with and without a language model, in beam search and sampling, with
    texts for which the state has to grow.
    """
    members = [subject(name, seed=3) for name in ("transformer", "bahdanau")]
    language_model = subject("recurrent_lm", seed=4)
    requests = [request._replace(minimum=18) for request in search_laws.requests_of(members[0], 20)]
    fused = (language_model.model, weight) if weight else ()
    params = tuple(s.params for s in (*members, *([language_model] if weight else [])))
    found = written(Ensemble(tuple(s.model for s in members), mean, *fused), params, requests, sample=seed, rules=RAW)
    prompts = [request._replace(source=None, sentences=None) for request in requests]
    for k in range(2):
        answers = [results[k].ids for results in found]
        each = [token_log_probs(s.model, s.params, requests, answers) for s in members]
        spoken = token_log_probs(language_model.model, language_model.params, prompts, answers)
        for row, results in enumerate(found):
            ours = np.stack([values[row] for values in each]).astype(np.float64)
            scores = np.log(np.exp(ours).mean(axis=0)) if mean == "probabilities" else ours.mean(axis=0)
            assert results[k].log_prob == pytest.approx((scores + weight * spoken[row]).sum(), rel=1e-5)
