"""Scores against the packages they come from."""

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from seqlab.errors import SeqlabError
from seqlab.metrics import METRICS, score
from seqlab.metrics.nearest import nearest_targets

LINES = st.lists(st.tuples(*[st.text("ab cß東,.", max_size=25)] * 3), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(LINES)
def test_sacrebleu(rows):
    hypotheses, *references = (list(column) for column in zip(*rows, strict=True))
    for name, peer in (
        ("bleu", sacrebleu.corpus_bleu),
        ("chrf", sacrebleu.corpus_chrf),
        ("ter", sacrebleu.corpus_ter),
    ):
        assert score(name, hypotheses, references)[0].value == peer(hypotheses, references).score


@settings(max_examples=40, deadline=None)
@given(LINES)
def test_rouge(rows):
    hypotheses, reference, _ = (list(column) for column in zip(*rows, strict=True))
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(names)
    scored = [scorer.score(right, left) for left, right in zip(hypotheses, reference, strict=True)]
    for name, found in zip(names, score("rouge", hypotheses, [reference]), strict=True):
        expected = 100 * sum(line[name].fmeasure for line in scored) / len(scored)
        assert found.value == pytest.approx(expected, abs=1e-9)


def test_signatures():
    for name in METRICS.keys() - {"mse"}:
        for found in score(name, ["a b c d"], [["a b c d"]]):
            assert "nrefs:1" in found.signature
            assert found.value == pytest.approx(0.0 if name == "ter" else 100.0)
    (found,) = score("bleu", ["a b"], [["a b"], ["a"]])
    assert found.signature == f"nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"


def test_exact_match():
    assert score("exact_match", ["a", "b ", "c"], [["a", "x", "x"], ["y", "b", "z"]])[0].value == pytest.approx(
        200 / 3
    )


@pytest.mark.parametrize(
    ("name", "hypotheses", "references", "message"),
    [
        ("blue", ["a"], [["a"]], "unknown metric 'blue': one of bleu"),
        ("bleu", [], [[]], "no hypotheses"),
        ("bleu", ["a"], [], "no references"),
        ("rouge", ["a", "b"], [["a", "b"], ["a"]], "2 hypotheses, but 1 lines in reference 2"),
    ],
)
def test_refused(name, hypotheses, references, message):
    with pytest.raises(SeqlabError, match=message):
        score(name, hypotheses, references)


def test_nearest():
    examples = [
        {"source": "the red house", "target": "A"},
        {"source": "the blue house and the sea", "target": "B"},
        {"source": "the red sea", "target": "C"},
    ]
    assert nearest_targets(["a red house", "blue house , sea", "the red sea", "xyz"], examples) == [
        "A",
        "B",
        "C",
        "A",
    ]


def test_mean_squared_error():
    (found,) = score("mse", ["1", "2.5"], [["0", "2"]])
    assert found == ("mean squared error", 0.625, "nrefs:1|lines:2")
    with pytest.raises(ValueError, match="lines that are numbers: could not convert string to float: 'x'"):
        score("mse", ["x"], [["1"]])
    with pytest.raises(ValueError, match="against one reference"):
        score("mse", ["1"], [["1"], ["2"]])
