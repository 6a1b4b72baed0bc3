"""Compares scores with the packages that compute them."""

import importlib
import json
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from seqlab.evaluation.confusion import confusion
from seqlab.evaluation.doubts import doubts
from seqlab.evaluation.nearest import nearest_targets
from seqlab.metrics.registry import count, find_metric, load_metrics, score, score_lines
from seqlab.metrics.rouge import words
from seqlab.system.errors import SeqlabError

# sacrebleu's command sets SIGPIPE to its default action, which ends a process of the tests at the next closed pipe.
SIGPIPE_ACTION = signal.getsignal(signal.SIGPIPE)
sacrebleu_main = importlib.import_module("sacrebleu.sacrebleu").main
signal.signal(signal.SIGPIPE, SIGPIPE_ACTION)

METRICS, ERRORS = load_metrics()
OF_NUMBERS = {"mse", "pearson", "spearman"}
OF_TEXT = sorted(METRICS.keys() - OF_NUMBERS)
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


def command_line(folder, hypotheses, references, *options):
    """Returns the output of the `sacrebleu` command, by metric."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.txt" for i in range(1 + len(references))]
    for path, lines in zip(paths, (hypotheses, *references), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    # The command reopens its standard streams by file descriptor.
    old = sys.argv, sys.stdin, sys.stdout
    numbers = os.open(os.devnull, os.O_RDONLY), os.open(folder / "out", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    sys.stdin, sys.stdout = (SimpleNamespace(fileno=lambda n=n: n) for n in numbers)
    hypotheses_path, *reference_paths = map(str, paths)
    sys.argv = [
        "sacrebleu",
        *reference_paths,
        "-i",
        hypotheses_path,
        "-w",
        "9",
        "-m",
        "bleu",
        "chrf",
        "ter",
        *options,
    ]
    try:
        sacrebleu_main()
        sys.stdin.close()
        sys.stdout.close()
    finally:
        sys.argv, sys.stdin, sys.stdout = old
    return {scored["name"]: scored for scored in json.loads((folder / "out").read_text(encoding="utf-8"))}


# The command does not close its files.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=12, deadline=None)
@given(LINES)
@example([("", "a", "b")])
@example([("a", "", "")])
@example([("a b c d e", "a b c d e", ""), ("", "", ""), ("東京 ß", "東京 ß", "")])
def test_as_the_sacrebleu_command(tmp_path_factory, rows):
    """Scores equal the command's in all digits, with Unicode and empty lines, and so do signatures."""
    hypotheses, *references = (list(column) for column in zip(*rows, strict=True))
    folder = tmp_path_factory.getbasetemp() / "sacrebleu"
    default = command_line(folder, hypotheses, references, "--force")
    lower = command_line(folder, hypotheses, references, "--force", "-tok", "none", "-lc", "--chrf-word-order", "2")
    for name, expected in (
        ("bleu", default["BLEU"]),
        ("chrf", default["chrF2"]),
        ("ter", default["TER"]),
        ("tokenized_lc_bleu", lower["BLEU"]),
        ("chrf++", lower["chrF2++"]),
    ):
        (computed,) = score(name, hypotheses, references)
        assert float(f"{computed.value:.9f}") == expected["score"]
        parts = dict(part.split(":") for part in computed.signature.split("|"))
        assert parts == {key: expected[key] for key in parts}


@settings(max_examples=40, deadline=None)
@given(LINES)
def test_lines_alone_as_sacrebleu(rows):
    hypotheses, *references = (list(column) for column in zip(*rows, strict=True))
    for name, peer in (
        ("bleu", sacrebleu.sentence_bleu),
        ("chrf", sacrebleu.sentence_chrf),
        ("ter", sacrebleu.sentence_ter),
    ):
        (values,) = score_lines(name, hypotheses, references).values()
        pairs = zip(hypotheses, zip(*references, strict=True), strict=True)
        assert values.tolist() == [peer(line, list(beside)).score for line, beside in pairs]


@settings(max_examples=40, deadline=None)
@given(LINES)
def test_rouge(rows):
    hypotheses, reference, _ = (list(column) for column in zip(*rows, strict=True))
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(names)
    scored = [scorer.score(right, left) for left, right in zip(hypotheses, reference, strict=True)]
    for name, computed in zip(names, score("rouge", hypotheses, [reference]), strict=True):
        expected = 100 * sum(line[name].fmeasure for line in scored) / len(scored)
        assert computed.value == pytest.approx(expected, abs=1e-9)


def test_signatures():
    names = [scored.name for name in OF_TEXT for scored in score(name, ["a"], [["a"]])]
    assert len(names) == len(set(names)) + 1 + 4  # bleu_zh and rouge_stemmed differ in their signatures
    for name in OF_TEXT:
        text = "B-a I-a O B-b" if name == "span_f1" else "a b c d"
        for scored in score(name, [text], [[text]]):
            assert "nrefs:1" in scored.signature
            assert scored.value == pytest.approx(0.0 if name == "ter" else 100.0)
    (scored,) = score("bleu", ["a b"], [["a b"], ["a"]])
    assert scored.signature == f"nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"


def test_exact_match():
    assert score("exact_match", ["a", "b ", "c"], [["a", "x", "x"], ["y", "b", "z"]])[0].value == pytest.approx(
        200 / 3
    )


@pytest.mark.parametrize(
    ("name", "hypotheses", "references", "message"),
    [
        ("blue", ["a"], [["a"]], "unknown metric 'blue': expected one of accuracy, bleu"),
        ("bleu", [], [[]], "no hypotheses"),
        ("bleu", ["a"], [], "no references"),
        ("rouge", ["a", "b"], [["a", "b"], ["a"]], "reference 2 has 1 line, but the hypotheses have 2 lines"),
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
    (scored,) = score("mse", ["1", "2.5"], [["0", "2"]])
    assert scored == ("mean squared error", 0.625, "nrefs:1|lines:2")
    with pytest.raises(ValueError, match="needs a number on each line, not 'x'"):
        score("mse", ["x"], [["1"]])
    with pytest.raises(ValueError, match="exactly one reference"):
        score("mse", ["1"], [["1"], ["2"]])


NUMBERS = st.lists(st.tuples(*[st.integers(-5, 5).map(lambda n: n / 2)] * 2), min_size=2, max_size=12)


@given(NUMBERS)
def test_correlations(pairs):
    """Compares correlations with their definitions in NumPy. Tied numbers share their mean rank."""
    predicted, expected = np.array(pairs).T

    def ranks(x):
        return (x[:, None] > x).sum(1) + ((x[:, None] == x).sum(1) - 1) / 2

    for name, x, y in (("pearson", predicted, expected), ("spearman", ranks(predicted), ranks(expected))):
        x, y = x - x.mean(), y - y.mean()
        norm = np.sqrt((x**2).sum() * (y**2).sum())
        (scored,) = score(name, [f"{n}" for n in predicted], [[f"{n}" for n in expected]])
        assert scored.value == pytest.approx(100 * (x * y).sum() / norm if norm > 1e-9 else 0.0, abs=1e-6)
        assert scored.signature == f"nrefs:1|lines:{len(pairs)}"


def test_a_correlation_of_one_line_is_refused():
    assert score("pearson", ["1"], [["2"]])[0].value == 0.0
    with pytest.raises(SeqlabError, match="pearson has no score for single lines"):
        score_lines("pearson", ["1", "2"], [["1", "2"]])
    with pytest.raises(SeqlabError, match="Spearman needs a finite number on each line"):
        score("spearman", ["inf"], [["2"]])


@given(NUMBERS, st.data())
def test_a_resampled_corpus_is_scored_as_its_lines(pairs, data):
    """A resampled corpus has the scores of its lines, each repeated as often as it was drawn."""
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs))))
    if not times.any():
        times[0] = 1
    lines = [[f"{n}" for n in column] for column in zip(*pairs, strict=True)]
    repeated = [list(np.repeat(column, times)) for column in lines]
    for name in OF_NUMBERS:
        resampled = count(name, lines[0], [lines[1]]).resample(times)
        assert next(iter(resampled.values())) == pytest.approx(
            score(name, repeated[0], [repeated[1]])[0].value, abs=1e-9
        )


def test_directions():
    lower = {name for name, metric in METRICS.items() if metric.lower_is_better}
    assert lower == {"mse", "ter"}
    assert {name for name, metric in METRICS.items() if "lower is better" in metric.description} == lower
    with pytest.raises(SeqlabError, match="unknown metric 'blue'"):
        find_metric("blue")


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_words_of_ascii_are_those_of_rouge_score(text):
    assert [word.lower() for word in words(text)] == DefaultTokenizer().tokenize(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Das schöne Haus", ["Das", "schöne", "Haus"]),
        ("東京タワー 2020年", ["東", "京", "タ", "ワ", "ー", "2020", "年"]),
        ("हिन्दी, اللغة!", ["हिन्दी", "اللغة"]),
        ("e\u0301te\u0301 x_y don't", ["été", "x", "y", "don", "t"]),
        ("กิน", ["กิ", "น"]),
        ("서울에 갔다", ["서울에", "갔다"]),
        (" -- ", []),
    ],
)
def test_words_of_any_script(text, expected):
    assert words(text) == expected


def test_rouge_of_what_is_not_ascii():
    """rouge-score drops non-ASCII text. The Unicode tokenizer does not, and has a different name and signature."""
    lines = ["東京", "schöne Häuser"]
    unicode, ascii = (score(name, lines, [lines]) for name in ("rouge_unicode", "rouge"))
    assert [scored.value for scored in unicode[:1]] == [100.0]
    assert ascii[0].value == 50.0
    assert not {scored.name for scored in unicode} & {scored.name for scored in ascii}
    assert "tok:unicode" in unicode[0].signature
    (doubt,) = doubts(["rouge"], lines, [lines], False)
    assert "2 of 2 references" in doubt
    assert "rouge_unicode" in doubt
    assert doubts(["rouge_unicode"], lines, [lines], False) == []
    assert doubts(["rouge"], ["a"], [["Houses, 3"]], False) == []


def test_stemming_is_told():
    texts = ["the dogs were running"], [["the dog was run"]]
    plain, stemmed = (score(name, *texts)[0] for name in ("rouge", "rouge_stemmed"))
    assert plain.value == 25.0
    assert stemmed.value > plain.value
    assert ("stemming:no" in plain.signature, "stemming:porter" in stemmed.signature) == (True, True)


def test_tokenized_text_is_questioned():
    tokenized, plain = ["Ein Hund läuft .", "Wer ist da ?", "Nein"], ["Ein Hund läuft.", "Wer ist da?", "Nein"]
    questions = doubts(["bleu"], tokenized, [plain], False) + doubts(["chrf"], plain, [plain, tokenized], False)
    assert [doubt.partition(",")[0] for doubt in questions] == [
        f"the {side} look tokenized (a space before the end of 2 of 2 sentences)"
        for side in ("hypotheses", "references")
    ]
    assert doubts(["bleu"], tokenized, [tokenized], True) == []
    assert doubts(["tokenized_bleu", "ter"], tokenized, [tokenized], False) == []
    assert doubts(["bleu"], plain, [plain], False) == []


@pytest.mark.parametrize("name", OF_TEXT)
def test_nothing_written_is_no_nan(name):
    for references in ([["", ""]], [["a b", ""]], [["a b c d e", "x"]]):
        for scored in score(name, ["", ""], references):
            assert np.isfinite(scored.value)
        for values in score_lines(name, ["", ""], references).values():
            assert np.isfinite(values).all()


def test_macro_f1():
    """Compares macro-F1 with its definition. A class that is only predicted has no F1 but counts as errors."""
    expected, predicted = list("aaabbc"), ["a", "a", "b", "b ", "c", "z"]
    (macro,) = score("macro_f1", predicted, [expected])
    f1 = {"a": 2 * 2 / (2 + 3), "b": 2 * 1 / (2 + 2), "c": 0.0}
    assert macro.value == pytest.approx(100 * sum(f1.values()) / 3)
    assert macro.signature == "nrefs:1|lines:6|classes:3"
    classes, counts = confusion(predicted, expected)
    assert classes == ["a", "b", "c", "z"]
    assert counts.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
