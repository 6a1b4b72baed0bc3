"""The trace of a search against the search, forced passes, and its own steps."""

import json

import pytest

from seqlab.laws import search as search_laws
from seqlab.search.forced import token_log_probs
from seqlab.search.presets import PRESETS, Rules
from seqlab.search.trace import trace
from tests.oracles.search import length_score
from tests.subjects import subject

EOS = 2
CASES = [
    ("transformer", "seqlab", 4, 1),
    ("transformer", "joey", 3, 1),
    ("recurrent_lm", "gnmt", 3, 1),
    ("recurrent_lm", "marian", 3, 1),
    ("conv_seq2seq", "hf", 3, 1),
    ("bahdanau", "fairseq", 2, 1),
    ("tcn_lm", "ct2", 3, 1),
    ("tcn_lm", "seqlab", 4, 2),
    ("transformer_lm", None, 1, 1),
    ("transformer_lm", None, 3, 3),
]


def arguments(preset, beam, groups):
    alpha, rules = (0.6, None) if preset is None else (PRESETS[preset].alpha, PRESETS[preset].rules)
    return {"beam": beam, "groups": groups, "rules": rules, "alpha": alpha, "diversity": 0.5}


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "preset", "beam", "groups"), CASES)
def test_as_the_search(name, preset, beam, groups):
    """The best result equals that of `generate`, every prefix has the log-probability of a forced pass, and the tree
    agrees with the recorded steps.
    """
    s, given = subject(name, seed=3), arguments(preset, beam, groups)
    rules, alpha = given["rules"] or Rules(), given["alpha"]
    for row, limit in ((1, 6), (2, 3), (4, 1)):
        request = search_laws.requests_of(s, limit)[row]
        ((text,),) = search_laws.search(s, [request], **given)
        found = trace(s.model, s.params, request, search_laws.settings_of(**given))
        assert found.best is not None
        assert found.best.ids == text.ids
        assert tuple(found.best[1:]) == pytest.approx(tuple(text[1:]), rel=1e-5)
        assert json.loads(json.dumps(found))[1] == [list(node) for node in found.nodes]
        paths = paths_of(found.nodes)
        assert paths[0] == []
        assert len({*map(tuple, paths)}) == len(paths)
        values = token_log_probs(s.model, s.params, [request] * len(paths[1:]), paths[1:])
        for node, path, value in zip(found.nodes[1:], paths[1:], values, strict=True):
            assert (node.log_prob, node.sum) == pytest.approx((value[-1], value.sum()), abs=1e-5)
            rescued = preset == "gnmt" and node.finished and path[-1] != EOS
            score = length_score("none" if rescued else rules.length_penalty, alpha, 0.0)
            assert node.score == pytest.approx(score(node.sum, len(path)), abs=1e-5)
        check_records(found, paths, beam)


def paths_of(nodes):
    paths = [[]]
    for i, node in enumerate(nodes[1:], 1):
        assert 0 <= node.parent < i
        assert node.depth == nodes[node.parent].depth + 1
        paths.append([*paths[node.parent], node.token])
    return paths


def check_records(found, paths, beam):
    """Recomputes from the steps when each prefix was pruned."""
    told = [[one.tokens for one in (*step.live, *step.finished)] for step in found.steps]
    assert sorted(paths[1:]) == sorted(map(list, {tuple(tokens) for step in told for tokens in step}))
    for n, step in enumerate(found.steps, 1):
        assert len(step.live) <= beam
        assert len(step.finished) <= beam
        assert all(len(one.tokens) == n for one in (*step.live, *step.finished))
    for node, path in zip(found.nodes, paths, strict=True):
        assert node.last == max(n for n, step in enumerate(told, 1) if path in [one[: len(path)] for one in step])
        assert node.finished == any(path == one.tokens for step in found.steps for one in step.finished)
        assert node.best == (path == found.best.ids[: len(path)])
    ends = [(node.score, path) for node, path in zip(found.nodes, paths, strict=True) if node.finished]
    assert max(ends)[1] == found.best.ids


def test_options_and_phrases():
    """Required and forbidden tokens have the same effect on the trace as on the text."""
    s = subject("transformer", seed=3)
    request = search_laws.requests_of(s, 6)[0]._replace(prefix=[4], phrases=[[5, 3]])
    given = {"beam": 4, "forbidden": (6,), "alpha": 0.6, "coverage": 0.2}
    ((text,),) = search_laws.search(s, [request], **given)
    found = trace(s.model, s.params, request, search_laws.settings_of(**given))
    assert found.best.ids == text.ids
    assert [(node.token, node.parent) for node in found.nodes if node.depth == 1] == [(4, 0)]
    assert not any(node.token == 6 for node in found.nodes)
    (end,) = [node for node in found.nodes if node.best and node.finished]
    assert end.score == pytest.approx(text.score, rel=1e-5)


def test_nothing_finished():
    """The limit is zero tokens."""
    s = subject("tcn_lm", seed=3)
    found = trace(s.model, s.params, search_laws.requests_of(s, 0)[0], search_laws.settings_of())
    assert (found.steps, found.best) == ([], None)
    assert [(node.token, node.parent, node.depth, node.last) for node in found.nodes] == [(1, -1, 0, 0)]
