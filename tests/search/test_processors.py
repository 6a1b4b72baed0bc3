"""Step processors against plain loops, and the constraints that whole searches satisfy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from seqlab import catalogue
from seqlab.laws import search as search_laws
from seqlab.search.exact import exact_search
from seqlab.search.forced import token_log_probs
from seqlab.search.presets import PRESETS
from seqlab.search.processors import (
    NEVER,
    History,
    forbid,
    make_processors,
    no_repeat_ngrams,
    process,
    repetition_penalty,
)
from seqlab.search.requests import Request, contains
from seqlab.system.errors import SeqlabError
from seqlab.types import Generator, Tokens
from tests.subjects import subject

RANDOM = np.random.default_rng(0)
GENERATORS = [
    name for name in catalogue.names("models") if isinstance(catalogue.module("models", name).TINY, Generator)
]
ROWS, BEAM, ROOM, VOCABULARY = 3, 2, 7, 6


def histories(t):
    tokens = np.zeros((ROWS, BEAM, ROOM), np.int32)
    tokens[..., :t] = RANDOM.integers(0, VOCABULARY, (ROWS, BEAM, t))
    return tokens, History(jnp.asarray(tokens), jnp.int32(t))


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_no_repeat_ngrams(n):
    scores = jnp.float32(RANDOM.normal(size=(ROWS, BEAM, VOCABULARY)))
    for t in (*range(ROOM), *[ROOM - 1] * 5):
        tokens, history = histories(t)
        found = np.asarray(no_repeat_ngrams(n)(scores, history))
        for row in range(ROWS):
            for k in range(BEAM):
                written = tokens[row, k, :t].tolist()
                seen = {tuple(written[i : i + n]) for i in range(t - n + 1)}
                for token in range(VOCABULARY):
                    again = t >= n - 1 and (*written[t - n + 1 :], token)[-n:] in seen
                    assert found[row, k, token] == (np.float32(NEVER) if again else scores[row, k, token])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_prompt_counts_as_text(n):
    """Tokens of the prompt that are not marked, such as padding and BOS, do not."""
    scores = jnp.float32(RANDOM.normal(size=(ROWS, BEAM, VOCABULARY)))
    ids = jnp.array([[0, 0, 1, 3, 4], [0, 0, 0, 0, 1], [1, 3, 3, 4, 5]])
    prompt = Tokens(ids, jnp.array([[False] * 3 + [True] * 2, [False] * 5, [False] + [True] * 4]))
    words = [[3, 4], [], [3, 3, 4, 5]]
    for t in range(ROOM):
        tokens, history = histories(t)
        history = history._replace(prompt=prompt)
        found = np.asarray(no_repeat_ngrams(n)(scores, history))
        penalized = np.asarray(repetition_penalty(2.0)(scores, history))
        for row, k, token in np.ndindex(ROWS, BEAM, VOCABULARY):
            text = [*words[row], *tokens[row, k, :t].tolist()]
            seen = {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}
            again = len(text) >= n - 1 and (*text[len(text) - n + 1 :], token)[-n:] in seen
            assert found[row, k, token] == (np.float32(NEVER) if again else scores[row, k, token])
            assert (penalized[row, k, token] != scores[row, k, token]) == (token in text)


@pytest.mark.parametrize("options", [{}, {"sample": 3}])
def test_search_repeats_no_word_of_the_prompt(options):
    s = subject("transformer_lm", seed=1)
    requests = [Request(None, [1, *words], limit=6, minimum=2) for words in ([3, 4], [], [5])]
    requests += [Request(None, words, limit=6, minimum=2, begin=0) for words in ([3, 4], [5])]
    results = search_laws.search(s, requests, beam=2, count=2, no_repeat=1, **options)
    for request, hypotheses in zip(requests, results, strict=True):
        assert len(hypotheses) == 2
        for hypothesis in hypotheses:
            text = [*request.prompt[request.begin :], *hypothesis.ids]
            assert len(set(text)) == len(text)
            assert len(hypothesis.ids) >= 1


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_prefix_leaves_a_whole_beam(preset):
    """While tokens are forced, one hypothesis exists. The others count as ended in no preset."""
    s = subject("transformer_lm", seed=2)
    request = Request(None, [1], limit=8, prefix=[3, 4])
    (hypotheses,) = search_laws.search(s, [request], beam=3, count=3, preset=preset)
    assert len({tuple(hypothesis.ids) for hypothesis in hypotheses if hypothesis.log_prob > NEVER / 2}) == 3
    assert all(hypothesis.ids[:2] == [3, 4] for hypothesis in hypotheses)


def test_a_prefix_that_repeats_the_prompt_is_refused():
    s = subject("transformer_lm")
    for options in ({"prefix": [3, 4]}, {"prefix": [4, 3, 4]}, {"phrases": [[3, 4]]}):
        request = Request(None, [1, 3, 4], limit=9, **options)
        with pytest.raises(SeqlabError, match="requires a repetition that --no-repeat 2 forbids"):
            search_laws.search(s, [request], beam=4, count=1, no_repeat=2)
    (best,) = search_laws.search(s, [Request(None, [1, 3, 4], limit=9, prefix=[3, 3])], beam=4, count=1, no_repeat=2)
    assert best[0].ids[:2] == [3, 3]


def test_repetition_penalty():
    scores = jnp.float32(RANDOM.normal(size=(ROWS, BEAM, VOCABULARY)))
    tokens, history = histories(4)
    found = np.asarray(repetition_penalty(1.5)(scores, history))
    for at in np.ndindex(ROWS, BEAM, VOCABULARY):
        score = float(scores[at])
        penalized = score / 1.5 if score > 0 else score * 1.5
        expected = penalized if at[2] in tokens[at[0], at[1], :4] else score
        assert found[at] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("renormalize", [True, False])
def test_what_is_forbidden_and_what_becomes_of_its_probability(renormalize):
    logits = jnp.float32(RANDOM.normal(size=(ROWS, BEAM, VOCABULARY)))
    _, history = histories(1)
    least = jnp.array([1, 2, 3])  # in the last row EOS is not allowed yet
    static = search_laws.settings_of(special=(5,)).static
    scores, normalizer = process(logits, history, [forbid([4])], least, static, renormalize)
    probabilities = np.exp(np.asarray(scores - normalizer, np.float64))
    whole = np.asarray(jax.nn.softmax(logits))
    for row in range(ROWS):
        gone = [2, 4] if row == 2 else [4]
        assert (probabilities[row][:, [*gone, 5]] == 0).all()  # a special token keeps its probability
        left = [token for token in range(VOCABULARY) if token not in (*gone, 5)]
        share = 1 - whole[row][:, gone].sum(-1, keepdims=True) if renormalize else 1.0
        np.testing.assert_allclose(probabilities[row][:, left], whole[row][:, left] / share, rtol=1e-5)


# Every example compiles, so a failing one is reported without shrinking.
@settings(max_examples=16, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    name=st.sampled_from(GENERATORS),
    preset=st.sampled_from(sorted(PRESETS)),
    beam=st.sampled_from([1, 3, 4]),
    seed=st.sampled_from([None, None, 7]),
    limit=st.integers(6, 21),
    least=st.integers(1, 6),
    prefix=st.lists(st.integers(3, 6), max_size=2),
    phrases=st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=2), max_size=2),
    options=st.sampled_from(
        [
            {},
            {"special": (0, 1, 4)},
            {"forbidden": (4, 5)},
            {"no_repeat": 2},
            {"special": (0, 1), "forbidden": (6,), "no_repeat": 1, "repetition": 1.3},
        ]
    ),
)
def test_what_is_asked_for_holds(name, preset, beam, seed, limit, least, prefix, phrases, options):
    """Any model with any rules satisfies lengths, prefixes, phrases, forbidden tokens and repeated n-grams, with the
    right scores, or raises one error.
    """
    s, rules = subject(name, seed=2), PRESETS[preset].rules
    plain = [request._replace(minimum=least) for request in search_laws.requests_of(s, limit)]
    told = [request._replace(prefix=prefix, phrases=phrases) for request in plain[:3]]
    requests = [*told, *plain[3:]]
    find = functools.partial(search_laws.search, s, beam=beam, count=beam, rules=rules, sample=seed, **options)
    n, forbidden = options.get("no_repeat", 0), {*options.get("forbidden", ()), *options.get("special", ())}
    try:
        found = find(requests)
    except SeqlabError as error:
        assert phrases or n or set(prefix) & forbidden, error
        return
    for request, results in zip(requests, found, strict=True):
        for result in results:
            body = result.ids[:-1] if result.ids[-1] == search_laws.EOS else result.ids
            assert search_laws.EOS not in body
            assert least <= len(result.ids) <= limit
            assert body[: len(request.prefix)] == [*request.prefix]
            assert all(contains(body, phrase) for phrase in request.phrases)
            assert not set(body) & forbidden
            if not request.prefix:
                grams = [tuple(body[i : i + n]) for i in range(len(body) - n + 1)] if n else []
                assert len(grams) == len(set(grams))
        answers = [tuple(result.ids) for result in results]
        assert seed is not None or len(set(answers)) == len(answers)
        enough = s.model.vocabulary - len({search_laws.EOS, *forbidden}) >= least - 1  # distinct tokens before EOS
        assert results or (n and (limit > 6 or prefix or phrases or not enough))
    if seed is not None or (options.keys() <= {"special"} and (least == 1 or not rules.renormalize)):
        answered = [(request, result) for request, results in zip(requests, found, strict=True) for result in results]
        asked, answers = [request for request, _ in answered], [result.ids for _, result in answered]
        values = token_log_probs(s.model, s.params, asked, answers)
        for (_, result), row in zip(answered, values, strict=True):
            assert result.log_prob == pytest.approx(float(row.sum()), rel=1e-5)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize(("beam", "seed"), [(1, None), (3, None), (2, 7)])
def test_where_every_token_is_forbidden_nothing_is_written(preset, beam, seed):
    """A text of at least 9 tokens without a repeated token needs more than the 7 tokens of the vocabulary."""
    s, rules = subject("transformer_lm"), PRESETS[preset].rules
    rules = None if beam == 1 and preset == "seqlab" else rules
    requests = [request._replace(minimum=9) for request in search_laws.requests_of(s, 12)]
    options = {"beam": beam, "count": beam, "sample": seed, "no_repeat": 1, "special": (0, 1)}
    assert search_laws.search(s, requests, rules=rules, **options) == [[] for _ in requests]


def test_exact_search_writes_no_special_token():
    """Its answer is the best of all texts without special tokens, by enumeration."""
    s = subject("transformer_lm", seed=2)
    requests = search_laws.requests_of(s, 3, shortest=2)
    special = (0, 1, 5)
    optima = exact_search(
        s.model, s.params, requests, search_laws.settings_of(special=special, alpha=0.6), budget=1000
    )
    words = [token for token in range(7) if token not in (*special, search_laws.EOS)]
    answers = [[*head, search_laws.EOS] for n in range(3) for head in itertools.product(words, repeat=n)]
    for row, (request, optimum) in enumerate(zip(requests, optima, strict=True)):
        scores, _ = search_laws.forced_scores(s, row, request.prompt, answers, 0.6)
        assert optimum.decided
        assert optimum.score == pytest.approx(scores.max(), rel=1e-5)
        assert not set(optimum.ids) & {*special}


def test_no_options_no_processors():
    assert make_processors(search_laws.settings_of().static) == []
