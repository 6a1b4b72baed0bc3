"""Soft prompts: ids beyond the vocabulary have separate vectors and no logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.config import Search
from seqlab.laws.subject import make_subject, passes
from seqlab.search.generate import generate
from seqlab.search.requests import Request
from seqlab.search.settings import split_settings
from tests.mutants import Mutant, planted


@pytest.fixture(scope="module")
def s():
    return make_subject(catalogue.module("models", "transformer_lm").TINY.clone(prompts=3))


def with_prompts(s):
    """Returns the prefix of a subject, with soft prompts as its first two tokens."""
    ids = s.prefix.ids.copy()
    ids[:, 0], ids[:, 1] = s.model.vocabulary, s.model.vocabulary + 2
    return s.prefix.replace(ids=ids)


def check_reading(model, params, forward, prefix):
    """Changing the vector of a prompt changes the logits if and only if the prompt occurs in the prefix."""
    before = forward(params, None, prefix)
    table = params["params"]["words"]["prompts"]
    for row, matters in ((0, True), (1, False), (2, True)):
        words = {**params["params"]["words"], "prompts": table.at[row].add(1.0)}
        after = forward({"params": {**params["params"], "words": words}}, None, prefix)
        assert np.array_equal(before, after) != matters
    assert before.shape[-1] == model.vocabulary


def test_prompts_are_read(s):
    params = jax.tree.map(jnp.asarray, s.params)
    check_reading(s.model, params, s.forward, with_prompts(s))


def test_other_tokens_are_what_they_were(s):
    """Without prompts in the prefix, the logits equal those of a model without prompts."""
    words = {name: leaf for name, leaf in s.params["params"]["words"].items() if name != "prompts"}
    plain = {"params": {**s.params["params"], "words": words}}
    expected = passes(s.model.clone(prompts=0))[0](plain, s.inputs, s.prefix)
    np.testing.assert_array_equal(s.forward(s.params, s.inputs, s.prefix), expected)


def test_search_reads_them_and_cannot_write_them(s):

    size = s.model.vocabulary
    requests = [Request(None, [size, size + 1, 1], 6), Request(None, [1, 3], 6)]
    settings = split_settings(Search(beam=4), eos=2, count=4)
    results = generate(s.model, s.params, requests, settings)
    assert all(0 <= token < size for best in results for result in best for token in result.ids)


def test_gradients_reach_what_is_read(s):
    def loss(params):
        return jnp.square(passes(s.model)[0](params, None, with_prompts(s))).sum()

    gradient = np.asarray(jax.grad(loss)(s.params)["params"]["words"]["prompts"])
    assert [bool(row.any()) for row in gradient] == [True, False, True]


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("prompts not read", "layers.embed", "(ids >= self.entries)[..., None]", "False", ""),
        Mutant("prompts shifted by one", "layers.embed", "ids - self.entries, 0", "ids - self.entries - 1, 0", ""),
    ],
    ids=lambda mutant: mutant.bug.replace(" ", "-"),
)
def test_a_planted_bug_is_caught(mutant):
    with planted(mutant) as package:
        model = package.catalogue.module("models", "transformer_lm").TINY.clone(prompts=3)
        subject = package.make_subject(model)
        params = jax.tree.map(jnp.asarray, subject.params)
        with pytest.raises(AssertionError):
            check_reading(model, params, subject.forward, with_prompts(subject))
