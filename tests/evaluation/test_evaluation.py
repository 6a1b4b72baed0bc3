"""The evaluation commands: scores of files, comparisons, errors, one input, and the report."""

import dataclasses
import json
import re
import shutil
import subprocess
from typing import NamedTuple

import numpy as np
import pytest

from seqlab import catalogue
from seqlab.codecs.label import Label
from seqlab.config import Search
from seqlab.data.records import prepare
from seqlab.datasets.local_files import LocalFiles
from seqlab.decoding.log_probs import is_causal, line_log_probs
from seqlab.evaluation import analysis, evaluate
from seqlab.evaluation.inspection import attention_maps, document_map
from seqlab.evaluation.report import difference, page
from seqlab.evaluation.texts import gather_texts
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.metrics.registry import score
from seqlab.runs import loading
from seqlab.search.forced import token_log_probs
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from tests.command import call, save_untrained
from tests.mutants import MUTANTS, planted

TEXTS = {
    "ref.txt": ["the cat sits on the mat.", "a dog runs.", "", "Zwölf Boxkämpfer", "<b>one</b> & two"],
    "good.txt": ["the cat sits on a mat.", "a dog runs.", "", "Zwölf Boxer", "<b>one</b> & two"],
    "bad.txt": ["cat", "dog dog dog", "x", "", "<script>alert(1)</script>"],
    "src.txt": ["die Katze", "ein Hund", "nichts", "twelve", "eins"],
    "short.txt": ["a", "b"],
    "empty.txt": [],
    "nan.txt": ["1", "nan", "inf", "2", "3"],
    "tok.txt": ["the cat .", "a dog .", "x .", "y", "z !"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Text files, two runs of untrained Transformers on a generated dataset, and its examples."""
    home = tmp_path_factory.mktemp("home")
    for name, lines in TEXTS.items():
        (home / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (home / "latin.txt").write_bytes("Zw\xf6lf\n".encode("latin-1") * 5)
    experiment = dataclasses.replace(tiny_experiment(), search=Search(beam=2, max_length=9))
    for seed, name in enumerate(("one", "two")):
        codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
        save_untrained(experiment, codecs, home / name, seed, 0.3)
        (home / name / "data.json").write_text("{}")
    prepare(experiment.data, home / "data")
    return home


def told(capsys, home, *arguments):
    assert call(home, *arguments) == 0
    return capsys.readouterr().out


def test_scores_of_files(home, capsys):
    """The command prints the scores of the functions with their provenance, and writes the scores of each line."""
    names = ("bleu", "chrf", "exact_match")
    command = ("score", "good.txt", "--references", "ref.txt", "bad.txt", "--metrics", *names)
    result = json.loads(told(capsys, home, *command, "--by-line", "lines.tsv", "--json"))
    lines, *references = (TEXTS[name] for name in ("good.txt", "ref.txt", "bad.txt"))
    expected = [scored for name in names for scored in score(name, lines, references)]
    assert [tuple(scored.values()) for scored in result["scores"]] == [tuple(scored) for scored in expected]
    assert result["files"].keys() == {"good.txt", "ref.txt", "bad.txt"}
    assert result["versions"]["sacrebleu"]
    head, *rows = (row.split("\t") for row in (home / "lines.tsv").read_text(encoding="utf-8").splitlines())
    assert head == ["line", "sentence BLEU", "chrF2", "exact match"]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert np.mean([float(row[1]) for row in rows]) == pytest.approx(
        result["mean over lines"]["sentence BLEU"], abs=1e-3
    )
    shown = told(capsys, home, "score", "good.txt", "--references", "ref.txt")
    assert [row.split()[0] for row in shown.splitlines()] == ["BLEU", "chrF2", "TER"]


def test_doubts_are_told(home, capsys):
    assert call(home, "score", "tok.txt", "--references", "ref.txt", "--metrics", "bleu", "rouge") == 0
    error = capsys.readouterr().err
    assert "look tokenized" in error
    assert "rouge_unicode" in error
    assert call(home, "score", "tok.txt", "--references", "ref.txt", "--tokenized") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "short.txt", "--references", "ref.txt"], "short.txt has 2 lines, but ref.txt has 5"),
        (["score", "good.txt", "--references", "ref.txt", "short.txt"], "good.txt has 5 lines, but short.txt has 2"),
        (["score", "empty.txt", "--references", "ref.txt"], "empty.txt is empty"),
        (["score", "latin.txt", "--references", "ref.txt"], "latin.txt:1"),
        (["score", "none.txt", "--references", "ref.txt"], "none.txt does not exist"),
        (["score", "good.txt", "--references", "ref.txt", "--metrics", "blue"], "one of accuracy, bleu"),
        (["compare", "good.txt", "bad.txt"], "give --references"),
        (["compare", "good.txt", "short.txt", "--references", "ref.txt"], "short.txt has 2 lines, but ref.txt has 5"),
        (["compare", "good.txt", "--references", "src.txt", "--source", "src.txt"], "src.txt equals the source"),
        (["compare", "good.txt,none.txt", "bad.txt", "--references", "ref.txt"], "none.txt does not exist"),
        (["compare", "one", "--split", "tset", "--data-dir", "data"], "tset"),
        (["analyze", "one", "--data-dir", "data", "--beams", "0"], "--beams must be at least 1"),
        (
            ["analyze", "one", "--data-dir", "data", "--exact", "3", "--preset", "fairseq"],
            "leave out exact search with --exact 0",
        ),
        (
            ["analyze", "one", "--data-dir", "data", "--sample", "1"],
            "search.sample cannot be used when references are scored: leave out search.sample",
        ),
        (
            ["analyze", "one", "--data-dir", "data", "--repetition", "2", "--no-repeat", "1"],
            "search.no_repeat and search.repetition cannot be used when references are scored",
        ),
        (["report", "one", "--data-dir", "data", "--out", "x.html", "--exact", "-2"], "--exact must be at least 0"),
        (["score", "good.txt", "--references", "ref.txt", "--by-line", "ref.txt"], "ref.txt is an input"),
        (["score", "src.txt", "--references", "nan.txt", "--metrics", "mse"], "needs a number on each line"),
        (["score", "nan.txt", "--references", "nan.txt", "--metrics", "mse"], "needs a finite number on each line"),
        (
            ["compare", "good.txt,,bad.txt", "bad.txt", "--references", "ref.txt"],
            "a name is empty: remove the extra comma",
        ),
        (["compare", "one", "--metrics", "blue", "--data-dir", "data"], "one of accuracy, bleu"),
        (["inspect", "one", "--text", " "], "give a text"),
        (["report", "one", "--out", "nowhere/page.html"], "because the folder nowhere does not exist"),
        (["report", "--out", "page.html"], "name the runs"),
    ],
)
def test_bad_input_is_one_line(home, capsys, arguments, message):
    before = sorted(path.name for path in home.iterdir())
    assert call(home, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert sorted(path.name for path in home.iterdir()) == before


def test_comparing_files(home, capsys):
    command = (
        "compare",
        "good.txt",
        "bad.txt",
        "--references",
        "ref.txt",
        "--source",
        "src.txt",
        "--train",
        "ref.txt",
    )
    result = json.loads(told(capsys, home, *command, "--metrics", "chrf", "--json"))
    good, bad = result["judged"]["chrf"]["scores"]["chrF2"]
    for lines, name in ((good, "good.txt"), (bad, "bad.txt")):
        assert lines["value"] == score("chrf", TEXTS[name], [TEXTS["ref.txt"]])[0].value
    assert (good["randomization"], bad["deviation"]) == (None, None)
    assert 0 < bad["randomization"] <= 1
    assert [table["title"] for table in result["tables"]] == [
        "chrF2 by words of the source",
        "chrF2 by words of the reference",
        "lines by chrF2 of the line, %",
        "F1 of words by frequency in training",
        "kinds of lines and words, %",
    ]
    shown = told(capsys, home, "compare", "good.txt,bad.txt", "bad.txt,bad.txt", "--references", "ref.txt")
    assert re.search(r"good.txt,bad.txt +[\d.]+ ± [\d.]+  seeds ± [\d.]+$", shown, re.M)
    assert re.search(r"bad.txt,bad.txt .* p [\d.]+ \(randomization\)", shown)


def test_comparing_runs_and_files(home, capsys):
    """The texts of a run are decoded with its search; the compared file has the same texts here."""
    assert call(home, "evaluate", "one", "--data-dir", "data", "--output", "one.txt") == 0
    capsys.readouterr()
    result = json.loads(told(capsys, home, "compare", "one", "one.txt", "two", "--data-dir", "data", "--json"))
    assert list(result["judged"]) == ["bleu", "chrf", "ter", "exact_match"]
    for judged in result["judged"].values():
        for systems in judged["scores"].values():
            assert systems[0]["value"] == systems[1]["value"]
            assert systems[1]["randomization"] == 1.0
    assert result["facts"]["files"]["one"]["step"] == 1
    assert len(result["facts"]["files"]["one"]["sha256"]) == 64


def test_faults_are_those_of_the_forced_scores(home):
    """The analysis, compared with its components: texts of the widest beams, log-probabilities of forced passes."""
    run = loading.load(home / "one")
    result = analysis.analyze(run, "test", home / "data", beams=(1, 3), exact=3, nodes=5)
    data = list(prepare(run.experiment.data, home / "data").read("test"))
    sources, references = ([example[side] for example in data] for side in ("source", "target"))
    written = [hypotheses[0] for hypotheses in run.write(sources)]
    forced = line_log_probs(run.trained, sources, references)
    for line, best, (ids, log_probs) in zip(result.lines, written, forced, strict=True):
        assert line.text == best.text
        assert line.by_log_prob.text == pytest.approx(best.log_prob, rel=1e-5)
        assert line.by_log_prob.reference == pytest.approx(log_probs.sum(), rel=1e-5)
        assert line.by_score.text == pytest.approx(best.score, rel=1e-5)
        assert line.by_score.reference == pytest.approx(log_probs.sum() / ((5 + len(ids)) / 6) ** 0.6, rel=1e-5)
        for by in (line.by_log_prob, line.by_score):
            right = line.text == line.reference
            assert by.fault == ("none" if right else "search" if by.reference > by.text else "model")
    assert [width.beam for width in result.widths] == [1, 3]
    for width in result.widths:
        texts = run.translate(sources, beam=width.beam)
        assert width.value == score("bleu", texts, [references])[0].value
        assert width.oracle >= width.value
    assert result.widths[0].oracle == result.widths[0].value
    assert result.unreachable == sum(len(ids) > 9 for ids, _ in forced)
    assert result.exact is not None
    assert (result.exact.lines, result.exact.budget) == (3, 5)


def test_whose_fault_it_is():
    """The rule of the paper, ties included: equal preferences are not a search error."""
    assert analysis.preference(-1.0, -2.0, False).fault == "model"
    assert analysis.preference(-2.0, -1.0, False).fault == "search"
    assert analysis.preference(-1.0, -1.0, False).fault == "model"
    assert analysis.preference(-2.0, -1.0, True).fault == "none"


def test_faults_where_the_truth_is_known(tmp_path):
    """Texts of at most one token, all of them enumerated: the reference is the best of all, so that whatever else is
    written is the search's fault, and exact search finds what greedy search has missed.
    """
    seed = 7  # greedy search makes some errors with it, but not only errors
    codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
    save_untrained(tiny_experiment(), codecs, tmp_path / "toy", seed, 1.0)
    run = loading.load(tmp_path / "toy").with_search(beam=1, max_length=2)
    target = run.codecs["target"]
    sources = [f"{n} days and {word}" for n in range(4) for word in ("x", "hours", "Montag")]
    answers = [[target.eos], *([token, target.eos] for token in range(target.size))]
    rows, truth = [], []
    for source, request in zip(
        sources, run.experiment.task.requests(run.trained.encode(sources), run.codecs, 2), strict=True
    ):
        log_probs = token_log_probs(run.model, run.params, [request] * len(answers), answers)
        scores = [x.sum() / ((5 + len(x)) / 6) ** 0.6 for x in log_probs]
        best = answers[int(np.argmax(scores))]
        if len(best) > 1 and target.encode([target.decode(best)])[0] == best[:-1]:  # the text encodes to the tokens
            rows.append({"from": source, "to": target.decode(best)})
            truth.append((best, max(scores)))
    assert len(rows) >= 6
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")}
    known = dataclasses.replace(run.experiment, data=LocalFiles(**files, source="from", target="to"))
    run = run._replace(experiment=known)

    result = analysis.analyze(run, "test", tmp_path / "data", beams=(1,), exact=len(rows), nodes=len(answers))
    missed = [line for line, (_, best) in zip(result.lines, truth, strict=True) if line.by_score.text < best - 1e-5]
    assert 0 < len(missed) < len(rows)
    for line, (_, best) in zip(result.lines, truth, strict=True):
        assert line.by_score.reference == pytest.approx(best, rel=1e-5)
        assert line.by_score.fault == ("search" if line in missed else "none")
    assert result.exact is not None
    assert (result.exact.decided, result.exact.better) == (len(rows), len(missed))
    assert result.exact.empty == 0
    wide = analysis.analyze(run.with_search(beam=len(answers)), "test", tmp_path / "data")
    assert {line.by_score.fault for line in wide.lines} == {"none"}


def test_analysis_in_the_terminal(home, capsys):
    options = ("--lines", "4", "--beams", "2", "--exact", "2", "--nodes", "4", "--data-dir", "data")
    shown = told(capsys, home, "analyze", "one", *options, "--output", "lines.jsonl")
    counts = [
        int(row.split()[-6]) for row in shown.splitlines() if row.startswith(("equal to", "search e", "model e"))
    ]
    assert sum(counts) == 4
    assert len((home / "lines.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    assert "exact search, 2 lines, at most 4 steps" in shown


def test_a_model_that_sees_ahead_has_no_perplexity(home):
    run = loading.load(home / "one")
    examples = [("a b c", "drei Tage und 3"), ("x", "Montag"), ("y", "")]
    sources, targets = ([pair[side] for pair in examples] for side in (0, 1))
    assert is_causal(run.trained, sources, targets)
    (mutant,) = (planted_bug for planted_bug in MUTANTS if planted_bug.bug == "causal mask dropped")
    with planted(mutant, "seqlab.runs.loading", "seqlab.evaluation.evaluate") as mutated:
        broken = mutated.load(home / "one")
        with pytest.raises(ValueError, match="sees later tokens"):
            mutated.evaluate(broken, "test", home / "data")


def test_perplexity_by_word_and_character(home):
    """One sum of log-probabilities, divided by counts of the text, which do not depend on the tokens."""
    run = loading.load(home / "two")
    scores = {scored.name: scored for scored in evaluate.evaluate(run, "test", home / "data").scores}
    data = list(prepare(run.experiment.data, home / "data").read("test"))
    sources, targets = ([example[side] for example in data] for side in ("source", "target"))
    forced = line_log_probs(run.trained, sources, targets)
    nats = -sum(float(log_probs.sum()) for _, log_probs in forced)
    tokens = sum(len(ids) for ids, _ in forced)
    words, characters = (sum(n) + len(targets) for n in ([len(t.split()) for t in targets], map(len, targets)))
    assert scores["perplexity"].value == pytest.approx(np.exp(nats / tokens), rel=1e-4)
    assert scores["perplexity"].signature == f"unit:token|tokens:{tokens}|left-out:0"
    assert scores["perplexity by word"].value == pytest.approx(np.exp(nats / words), rel=1e-4)
    assert scores["bits by character"].value == pytest.approx(nats / np.log(2) / characters, rel=1e-4)


def test_nothing_is_left_out_of_a_perplexity(home):
    """Training may leave long examples out; reported perplexities count all of them."""
    run = loading.load(home / "one")
    narrow = dataclasses.replace(run.experiment.batching, max_length=9, max_ratio=1.2)
    short = run._replace(experiment=dataclasses.replace(run.experiment, batching=narrow))
    expected_scores, short_scores = (
        evaluate.evaluate(model_run, "test", home / "data").scores[:4] for model_run in (run, short)
    )
    for score_of_run, score_of_short in zip(expected_scores, short_scores, strict=True):
        assert score_of_run.signature == score_of_short.signature
        assert score_of_run.value == pytest.approx(score_of_short.value, rel=1e-5)


def test_inspecting_a_text(home, capsys):
    command = ("inspect", "one", "--text", "3 days </script> & more", "--beam", "3")
    result = json.loads(told(capsys, home, *command, "--out", "page.html", "--json"))
    run = loading.load(home / "one")
    written = run.write(["3 days </script> & more"], nbest=3, beam=3)[0]
    assert [hypothesis["text"] for hypothesis in result["written"]] == [hypothesis.text for hypothesis in written]
    assert np.log([p for _, p in result["tokens"]]).sum() == pytest.approx(written[0].log_prob, rel=1e-4)
    assert sum(node["best"] for node in result["tree"]) == len(result["tokens"]) + 1
    assert "</script> & more" not in (home / "page.html").read_text(encoding="utf-8").partition("use strict")[0]
    shown = told(capsys, home, *command)
    assert written[0].text in shown
    assert "(finished)" in shown


def test_attention_is_the_models(home):
    """Bytes [L H T S] of a forced pass: rows add up to one within rounding."""
    import base64

    run = loading.load(home / "one")
    (result,) = attention_maps(run, ["3 days and more"], ["drei Tage"])
    weights = np.frombuffer(base64.b64decode(result["weights"]), np.uint8) / 255
    weights = weights.reshape(result["layers"], result["heads"], len(result["target"]), len(result["source"]))
    target = run.codecs["target"]
    pieces = [target.names[token] for token in [*target.encode(["drei Tage"])[0], target.eos]]
    assert result["target"] == [piece.replace("\u2581", " ") for piece in pieces]
    np.testing.assert_allclose(weights.sum(-1), 1, atol=len(result["source"]) / 255)
    assert result["sentences"] is None
    (more,) = attention_maps(run, ["one\ntwo\nthree"], ["x"])
    assert max(more["sentences"]) == 2


def test_what_a_classifier_reads(tmp_path):
    """At both levels the weights add up to one: over sentences, and over the words of each sentence."""
    rows = [{"text": f"day {i}.\nSee it.", "kind": "ab"[i % 2]} for i in range(6)]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")}
    experiment = dataclasses.replace(
        tiny_experiment(),
        model=catalogue.without_sizes(catalogue.module("models", "classifier_head").VARIANTS[0]),
        task=Classification(),
        data=LocalFiles(**files, source="text", label="kind"),
    )
    save_untrained(experiment, {"source": tiny_tokenizer(), "label": Label(("a", "b"))}, tmp_path / "run", 0, 0.5)
    run = loading.load(tmp_path / "run")
    result = document_map(run, Classification(), "day 3.\nSee it.\nNo.")
    assert len(result["sentences"]) == 3
    assert sum(sentence["weight"] for sentence in result["sentences"]) == pytest.approx(1, abs=1e-5)
    for sentence in result["sentences"]:
        assert sum(weight for _, weight in sentence["words"]) == pytest.approx(1, abs=1e-5)
    assert [len(sentence["words"]) for sentence in result["sentences"]] == [
        len(run.codecs["source"].encode([line])[0]) for line in ("day 3.\n", "See it.\n", "No.")
    ]


DOM = ("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom")


def in_a_browser(path, script=""):
    """Returns the content of the page in a browser, after a script that simulates a user."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((result for name in names if (result := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium")
    tried = path.with_name("tried.html")
    content = path.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>")
    tried.write_text(content, encoding="utf-8")
    result = subprocess.run([browser, *DOM, tried.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return re.sub("<script.*?</script>", "", result.stdout, flags=re.S)


def test_the_page(home, capsys):
    """All sections exist, markup in data is text, and hovering shows the weight."""
    command = (
        "report",
        "one",
        "two",
        "--out",
        "page.html",
        "--data-dir",
        "data",
        "--beams",
        "1",
        "2",
        "--exact",
        "2",
        "--nodes",
        "3",
    )
    assert call(home, *command) == 0
    content = (home / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=.?https?:", content)
    script = """
      document.querySelectorAll("details").forEach((box) => { box.open = true; box.dispatchEvent(new Event("toggle"));
      }); document.querySelector(".grid .cell").dispatchEvent(new Event("mouseenter"));
    """
    shown = in_a_browser(home / "page.html", script)
    for section in (
        "Runs",
        "Scores",
        "Where systems differ",
        "Search errors and model errors",
        "Sentences",
        "Provenance",
    ):
        assert f">{section}</h2>" in shown
    assert re.search(r'class="reading">[^<]+ ← [^<]+: [\d.]+ %', shown)
    assert "undefined" not in shown
    assert "NaN" not in shown


def test_markup_in_data_is_text(tmp_path):
    evil = '</script><img src=x onerror="document.title=1">'
    card = {"number": 1, "source": evil, "reference": "مرحبا 東京", "texts": [
        {"run": evil, "score": 1.0, "parts": difference(evil, "مرحبا 東京"), "attention": None}]}  # fmt: skip
    (tmp_path / "page.html").write_text(
        page({"title": "t", "made": evil, "sentences": {"worst": [card]}}), encoding="utf-8"
    )
    shown = in_a_browser(tmp_path / "page.html")
    assert "<img" not in shown
    assert "&lt;img src=x" in shown
    assert "<title>t</title>" in shown
    assert 'dir="auto">مرحبا 東京' in shown


def test_differences_spell_both():
    for text, reference in (("a b c", "a x c"), ("", "a"), ("a", ""), ("b a", "a b"), ("a  b", "a b")):
        parts = difference(text, reference)
        assert "".join(words for kind, words in parts if kind != "del").split() == text.split()
        assert "".join(words for kind, words in parts if kind != "ins").split() == reference.split()


def test_forced_passes_of_a_stream_without_a_prompt(tmp_path):
    """An empty prompt becomes the newline token in a model without BOS."""
    from seqlab.tasks.language_modeling import LanguageModeling

    experiment = dataclasses.replace(
        tiny_experiment(),
        model=catalogue.module("models", "recurrent_lm").TINY.clone(vocabulary=0),
        task=LanguageModeling("stream"),
    )
    save_untrained(experiment, {"target": tiny_tokenizer()}, tmp_path / "run", 0, 0.3)
    run = loading.load(tmp_path / "run")
    ((ids, log_probs),) = line_log_probs(run.trained, [""], ["3 Tage"])
    assert len(ids) == len(log_probs)
    (request,) = run.experiment.task.requests([""], run.codecs, 0)
    assert request.prompt == [run.codecs["target"].newline]
    np.testing.assert_allclose(token_log_probs(run.model, run.params, [request], [ids])[0], log_probs)


def test_no_analysis_of_what_writes_nothing(tmp_path):
    with pytest.raises(SeqlabError, match="does not search"):
        experiment = dataclasses.replace(tiny_experiment(), task=Classification())
        analysis.analyze(loading.Run(tmp_path, 1, experiment, {}, {}, None), "test", tmp_path)


def test_columns_of_one_name_stay_apart(home):
    names = ("rouge", "rouge_stemmed", "bleu", "bleu_zh")
    assert (
        call(home, "score", "good.txt", "--references", "ref.txt", "--metrics", *names, "--by-line", "two.tsv") == 0
    )
    head = (home / "two.tsv").read_text(encoding="utf-8").splitlines()[0].split("\t")
    assert len(head) == 1 + 4 + 4 + 2
    assert {"ROUGE-1 (rouge)", "ROUGE-1 (rouge_stemmed)", "sentence BLEU (bleu_zh)"} <= {*head}


def test_a_report_is_of_the_runs_that_are_given(home):
    """The report judges the loaded runs, such as another checkpoint, and does not load them again."""
    first, second = (loading.load(home / name) for name in ("one", "two"))
    data = home / "data"
    names = [str(home / name) for name in ("one", "two")]
    texts = gather_texts(
        names, (), data, loaded=dict(zip(names, (first._replace(params=second.params), second), strict=True))
    )
    assert texts.systems[0].seeds == texts.systems[1].seeds


def test_texts_without_words(home, capsys):
    (home / "marks.txt").write_text("!\n?\n", encoding="utf-8")
    shown = told(capsys, home, "compare", "marks.txt", "--references", "marks.txt", "--train", "ref.txt")
    assert "kinds of lines and words" in shown
    assert "F1 of words" not in shown


def test_what_is_no_number_leaves_a_gap(tmp_path):
    points = [[1, 5.0], [2, 4.0], [3, float("nan")], [4, float("inf")], [5, 3.0], [6, 2.0]]
    run = {"name": "r", "model": "m", "parameters": 1, "step": 6, "search": "", "curves": {"validation loss": points}}
    (tmp_path / "page.html").write_text(page({"title": "t", "made": "", "runs": [run]}), encoding="utf-8")
    (line,) = re.findall(r'<path[^>]* d="([^"]+)"', in_a_browser(tmp_path / "page.html"))
    assert line.count("M") == 2
    assert line.count("L") == 2


def test_lines_keep_their_numbers(home, monkeypatch):
    """Line numbers are those of the split, although lines without a source are skipped."""
    run = loading.load(home / "one")

    class Split(NamedTuple):
        def size(self, split):
            return 3

        def read(self, split, start, stop):
            return iter([{"source": source, "target": "x"} for source in (" ", "3 days", "Monday")][start:stop])

    monkeypatch.setattr(analysis, "prepare", lambda data, folder: Split())
    assert [line.number for line in analysis.analyze(run, "test", home / "data").lines] == [1, 2]
