"""Tasks other than translation, from a table on disk to scores, with the functions of the command line."""

import dataclasses
import itertools
import json
import re
import shutil

import jax
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.config import Batching, Parallel, Schedule, Search, Text, Validation
from seqlab.data.corpus import encode_split
from seqlab.data.plans import BatchPlan
from seqlab.data.records import PreparedData, prepare
from seqlab.datasets.adding_problem import AddingProblem
from seqlab.datasets.local_files import LocalFiles
from seqlab.datasets.mixture import Mixture
from seqlab.decoding.output_format import Format
from seqlab.decoding.stream import LineStreams, decode_stream
from seqlab.distributed.devices import fit_rows
from seqlab.encoders.dilated import DilatedEncoder
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.evaluation import evaluate
from seqlab.laws.tasks import tiny_corpus, tiny_plan, tiny_tokenizer
from seqlab.laws.training import Killed, tiny_experiment
from seqlab.layers.nesting import readers_of
from seqlab.readers.numbers import Numbers
from seqlab.runs import loading
from seqlab.runs.checkpoint import fingerprint, restore
from seqlab.tasks.classification import Classification
from seqlab.tasks.dialogue import Dialogue
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.tasks.regression import Regression
from seqlab.tasks.summarization import Summarization
from seqlab.tasks.tagging import Tagging
from seqlab.tasks.translation import Translation
from seqlab.training.train import train
from seqlab.training.validation import loss_of_split
from seqlab.types import Generator
from tests.command import call, save_untrained


def quiet(line):
    """Prints nothing."""


def table(path, count):
    rows = [
        {"text": f"{'warm' if i % 3 else 'cold'} day {i}.\nSee {i}.", "title": f"day {i}", "kind": "ab"[i % 3 == 0]}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def experiment_on(tmp_path, model, task, **columns):
    counts = {"train": 40, "validation": 5, "test": 7}
    splits = {split: table(tmp_path / f"{split}.jsonl", count) for split, count in counts.items()}
    tiny = catalogue.module("models", model).TINY
    tie = {"tie": "all"} if readers_of(tiny) and hasattr(tiny, "tie") else {}
    layers = {name: 1 for name in ("layers", "encoder_layers", "decoder_layers") if hasattr(tiny, name)}
    return dataclasses.replace(
        tiny_experiment(),
        model=catalogue.without_sizes(tiny).clone(**layers, **tie),
        task=task,
        data=LocalFiles(**splits, **columns),
        steps=4,
        text=Text("char", 300),
        batching=Batching(tokens=400, buckets=1, max_length=40),
        search=Search(beam=2, max_length=6),
        validation=Validation(every=2, examples=5, beam=1 if task.metrics else 0),
    )


CASES = {
    "classification": ("classifier_head", Classification(max_tokens=12), {"source": "text", "label": "kind"}),
    "summarization": (
        "transformer",
        Summarization(source_tokens=9, keep="ends"),
        {"source": "text", "target": "title"},
    ),
    "dialogue": ("hierarchical_seq2seq", Dialogue(source_tokens=9), {"source": "text", "target": "title"}),
    "packed": ("transformer_lm", LanguageModeling("packed"), {"target": "text"}),
    "stream": ("recurrent_lm", LanguageModeling("stream"), {"target": "text"}),
}


GENERATORS = [n for n in catalogue.names("models") if isinstance(catalogue.module("models", n).TINY, Generator)]


@pytest.mark.sample(2)
@pytest.mark.parametrize("model", GENERATORS)
def test_the_command_decodes_every_generator(tmp_path, model):
    """With untrained parameters, the command writes one line per input line: an empty line for an empty source, and a
    text for an empty prompt.
    """
    reads = readers_of(catalogue.module("models", model).TINY)
    task, columns = (Translation(), {"source": "text"}) if reads else (LanguageModeling(), {})
    experiment = experiment_on(tmp_path, model, task, target="title", **columns)
    save_untrained(experiment, dict.fromkeys(task.columns, tiny_tokenizer()), tmp_path / "run")
    (tmp_path / "in.txt").write_text("a b\n\nc 1 2\n")
    assert call(tmp_path, "decode", "run", "--input", "in.txt", "--output", "out.txt", "--scores") == 0
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert [bool(re.fullmatch(r".* \|\|\| -\d+\.\d{4}", line)) for line in lines] == [True, not reads, True]
    assert (lines[1] == " ||| 0.0000") == bool(reads)


@pytest.mark.parametrize("case", CASES)
def test_trains_and_is_judged(tmp_path, case):
    model, task, columns = CASES[case]
    experiment = experiment_on(tmp_path, model, task, **columns)
    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    run = loading.load(tmp_path / "run")
    result = evaluate.evaluate(run, "test", tmp_path / "data")
    names = {score.name for score in result.scores}
    assert all(np.isfinite(score.value) for score in result.scores)
    if case == "classification":
        assert names == {
            "perplexity",
            *(f"{score}{of}" for score in ("accuracy", "macro-F1") for of in ("", " (majority)")),
        }
        assert set(result.decoded.texts) <= {"a", "b"}
        majority = next(s for s in result.scores if s.name == "accuracy (majority)")
        assert majority.value == pytest.approx(100 * 4 / 7)
        assert run.translate(["warm day 3.", ""])[1] in {"a", "b"}
    elif case == "summarization":
        assert {"ROUGE-1", "ROUGE-L", "ROUGE-2 (first sentence)"} <= names
    elif case == "dialogue":
        assert {"BLEU", "chrF2 (most frequent reply)"} <= names
        turns = "warm day 3.\tSee 3."
        assert list(decode_stream(run.trained, run.search_config(), LineStreams([turns]))) == run.translate(
            [turns.replace("\t", "\n")]
        )
    else:
        assert names == {"perplexity", "perplexity by word", "bits by character", "accuracy"}
        assert run.translate(["wa"])[0].startswith("wa")


@pytest.mark.long
@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_trains_and_decodes(tmp_path, name):
    """The same code trains and decodes every model."""
    reads = readers_of(catalogue.module("models", name).TINY)
    columns = {"source": "text", "target": "title"} if reads else {"target": "text"}
    experiment = experiment_on(tmp_path, name, Translation() if reads else LanguageModeling(), **columns)
    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    run = loading.load(tmp_path / "run")
    lines = ["warm day 3.", "", "cold"]
    search = run.search_config(beam=3, max_length=9)
    best = list(decode_stream(run.trained, search, LineStreams(lines), Format(scores=True)))
    listed = list(decode_stream(run.trained, search, LineStreams(lines), Format(nbest=2)))
    assert len(best) == 3
    assert (best[1] == " ||| 0.0000") == bool(reads)  # a blank prompt is the beginning of a text
    assert [line.split(" ||| ", 1)[1] for line in listed[::2]] == best
    assert all(np.isfinite(score.value) for score in evaluate.evaluate(run, "test", tmp_path / "data").scores)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("parallel", "rows"), [("jit", 2), ("pmap", 2), ("pmap", 19)])
def test_a_stream_carries_its_state(tmp_path, parallel, rows):
    """A run that is interrupted and resumed ends like an uninterrupted run, also with several rows per device. The
    loss of a text does not depend on how it is split into streams.
    """
    model, task, columns = CASES["stream"]
    experiment = dataclasses.replace(
        experiment_on(tmp_path, model, task, **columns),
        parallel=Parallel(parallel),
        batching=Batching(tokens=7 * rows, max_length=7),
        validation=Validation(every=1, examples=5, beam=0),
    )

    def until_third(line):
        if line.startswith("step 3:"):
            raise Killed

    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    with pytest.raises(Killed):
        train(experiment, tmp_path / "cut", tmp_path / "data", say=until_third)
    train(experiment, tmp_path / "cut", tmp_path / "data", say=quiet)
    assert fingerprint(tmp_path / "run", 4) == fingerprint(tmp_path / "cut", 4)
    carry = restore(tmp_path / "run", 4)["carry"]
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(carry))

    run = loading.load(tmp_path / "run")
    data = prepare(experiment.data, tmp_path / "data")
    corpus = encode_split(data, "test", run.codecs, tmp_path / "data")
    losses = []
    for length in (7, 1000):
        one_row = dataclasses.replace(run.experiment, batching=Batching(tokens=length, max_length=length))
        losses.append(loss_of_split(one_row, run.codecs, corpus)(run.params)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_rows_are_fitted_to_the_devices():
    """Moves a carry of three rows, filled up for eight devices, to two devices and back."""
    carry = np.arange(6, dtype=np.float32).reshape(3, 2)
    on_eight = fit_rows(carry, 8)
    assert on_eight.shape == (8, 2)
    assert not on_eight[3:].any()
    for rows in (4, 3, 8):
        np.testing.assert_array_equal(fit_rows(on_eight, rows)[:3], carry)
        assert len(fit_rows(on_eight, rows)) == rows


def test_labels_may_stand_wide_apart(tmp_path):
    """The amount of white space between symbols does not matter."""
    path = tmp_path / "t.tsv"
    path.write_text("text\tkind\n" + "".join(f"{'a b ' * n}\t{'x  y ' * n}\n" for n in (1, 2, 3)))
    experiment = dataclasses.replace(
        experiment_on(tmp_path, "tagger_head", Tagging(), source="text", label="kind"),
        data=LocalFiles(str(path), str(path), str(path), source="text", label="kind"),
        steps=60,
        schedule=Schedule(name="constant", peak=3e-2, warmup=0),
        validation=Validation(every=60, examples=3),
    )
    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    scores = evaluate.evaluate(loading.load(tmp_path / "run"), "test", tmp_path / "data").scores
    assert {score.name: score.value for score in scores if score.name != "loss"} == {
        "accuracy": 100,
        "exact match": 100,
    }


def test_a_regression_trains(tmp_path):
    experiment = dataclasses.replace(
        experiment_on(tmp_path, "regressor_head", Regression(features=2), source="text", target="title"),
        data=AddingProblem(length=5, train=40, validation=7, test=7),
        steps=4,
    )
    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    run = loading.load(tmp_path / "run")
    scores = evaluate.evaluate(run, "test", tmp_path / "data").scores
    assert [score.name for score in scores] == ["mean squared error", "mean squared error (mean)"]
    assert all(0 < score.value < 10 for score in scores)
    assert np.isfinite([float(answer) for answer in run.translate(["0.5 1 0.25 1", ""])]).all()
    with pytest.raises(ValueError, match="expected a multiple of 2"):
        run.translate(["0.5 1 0.25"])


def test_a_batch_longer_than_the_model(tmp_path):
    """Refused before a run is created."""
    model, task, columns = CASES["packed"]
    experiment = experiment_on(tmp_path, model, task, **columns)
    short = experiment.model.clone(positions="learned", max_length=30)
    with pytest.raises(
        ValueError, match="has 40 positions, but the model supports at most 30: raise model.max_length"
    ):
        train(dataclasses.replace(experiment, model=short), tmp_path / "run", tmp_path / "data", say=quiet)
    assert not (tmp_path / "run").exists()


def test_a_kernel_wider_than_the_batches(tmp_path):
    """Refused before a run is created; models without a kernel are not affected."""
    experiment = experiment_on(tmp_path, "regressor_head", Regression(features=2), source="text", target="title")
    experiment = dataclasses.replace(
        experiment, data=AddingProblem(length=5, train=40, validation=7, test=7), steps=2
    )
    encoders = DilatedEncoder(Numbers(), layers=2, dim=8, kernel=9), RecurrentEncoder(Numbers(), dim=8)
    wide = [experiment.model.clone(encoder=encoder) for encoder in encoders]
    with pytest.raises(ValueError, match="a kernel of 9 positions is wider .* at most 5"):
        train(dataclasses.replace(experiment, model=wide[0]), tmp_path / "run", tmp_path / "data", say=quiet)
    assert not (tmp_path / "run").exists()
    train(dataclasses.replace(experiment, model=wide[1]), tmp_path / "run", tmp_path / "data", say=quiet)


def test_a_mixture_trains(tmp_path):
    model, _, columns = CASES["packed"]
    experiment = experiment_on(tmp_path, model, LanguageModeling(), **columns)
    data = experiment.data
    other = LocalFiles(table(tmp_path / "more.jsonl", 4), data.validation, target="title")
    experiment = dataclasses.replace(experiment, data=Mixture((data, other), (1.0, 1.0)))
    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    loaded = catalogue.load_experiment(tmp_path / "run" / "experiment.json")
    assert (loaded.data, loaded.task) == (experiment.data, experiment.task)


@pytest.mark.parametrize("name", catalogue.names("tasks"))
def test_the_weights_of_a_batch_count_units(name):
    task = catalogue.part_class("tasks", name)()
    corpus, codecs, examples = tiny_corpus(task)
    plan = tiny_plan(task, corpus).batches(0, None)
    weight = sum(task.collate(corpus, batch_plan, codecs).weights.sum() for batch_plan in plan)
    assert (task.unit, weight > len(examples)) in (("token", True), ("example", False))
    assert task.unit == "token" or weight == len(examples)


def test_documents_are_cut():
    ids = np.arange(10)
    cuts = [Summarization(source_tokens=5, keep=keep).cut(ids).tolist() for keep in ("head", "tail", "ends")]
    assert cuts == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [0, 1, 2, 8, 9]]
    assert Summarization(source_tokens=10).cut(ids).tolist() == ids.tolist()
    with pytest.raises(ValueError, match="task.keep must be head, tail or ends"):
        Summarization(keep="middle")
    with pytest.raises(ValueError, match="task.rows must be lines, packed or stream"):
        LanguageModeling("rows")


def test_the_first_sentence_is_the_baseline():
    examples = [{"target": "one two"}, {"target": "one two three four"}]
    name, answers = Summarization().baseline(["A b c d e. F.", "Short\nline"], iter(examples))
    assert (name, answers) == ("first sentence", ["A b c", "Short"])


def test_streams_hold_the_text():
    """Compares segments of any length, from any position, with the text."""
    task = LanguageModeling("stream")
    corpus, codecs, examples = tiny_corpus(task)
    text = np.array(codecs["target"].encode(["\n".join(e["target"] for e in examples)])[0])
    for start, length in itertools.product((0, 1, 17, len(text) - 2, -3), (5, 1, 30)):
        batch = task.collate(corpus, BatchPlan(np.array([start]), (length,), 1), codecs)
        real = np.arange(max(start, 0), max(min(start + length, len(text) - 1), 0))
        mask = batch.prefix.mask[0]
        assert mask.tolist() == (batch.weights[0] > 0).tolist()
        assert batch.prefix.ids[0][mask].tolist() == text[real].tolist()
        assert batch.targets[0][mask].tolist() == text[real + 1].tolist()


def test_a_second_run_reads_no_text(tmp_path, monkeypatch):
    """Tokenizer, classes, ids and plan are reused from the first run on the same data."""
    model, task, columns = CASES["classification"]
    experiment = experiment_on(tmp_path, model, task, **columns)
    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    sources = []
    source = PreparedData.source
    monkeypatch.setattr(PreparedData, "source", lambda self, split: sources.append(split) or source(self, split))
    monkeypatch.setattr("seqlab.data.plan_cache.make_buckets", None)
    train(experiment, tmp_path / "again", tmp_path / "data", say=quiet)
    # One example of the smallest split, for its columns, and the examples decoded at steps 2 and 4.
    assert sources == ["validation", "validation", "validation"]
    prints = [fingerprint(tmp_path / name, 4) for name in ("run", "again")]
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        (
            "summarization",
            {"target": ""},
            "Summarization needs the column 'target', but the columns of the data are: 'source'",
        ),
        ("packed", {"mixed": True}, "a mixture with rates requires task.rows 'lines', not 'packed'"),
        ("stream", {"letters": True}, "a stream needs a text of at least two tokens"),
        ("classification", {"unseen": True}, "split validation: column 'label', example 1: unknown label 'c'"),
    ],
)
def test_refuses(tmp_path, case, changes, message):
    model, task, columns = CASES[case]
    kept = {ours: theirs for ours, theirs in columns.items() if changes.get(ours, theirs)}
    experiment = experiment_on(tmp_path, model, task, **kept)
    if "mixed" in changes:
        experiment = dataclasses.replace(experiment, data=Mixture((experiment.data, experiment.data), (1.0, 2.0)))
    if "letters" in changes:
        (tmp_path / "train.jsonl").write_text('{"text": "x"}\n')
    if "unseen" in changes:
        (tmp_path / "validation.jsonl").write_text('{"text": "x", "kind": "c"}\n')
    with pytest.raises(ValueError, match=message):
        train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", ["summarization", "dialogue", "classification", "packed", "stream"])
def test_a_smoothing_that_is_no_share(case):
    with pytest.raises(ValueError, match=r"task.label_smoothing must be at least 0 and below 1, not 1.5"):
        dataclasses.replace(CASES[case][1], label_smoothing=1.5)


def test_a_run_cut_off_at_its_birth(tmp_path):
    """A run that was killed between writing the labels and experiment.json starts over."""
    model, task, columns = CASES["classification"]
    experiment = experiment_on(tmp_path, model, task, **columns)
    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    shutil.copytree(tmp_path / "run" / "codecs", tmp_path / "cut" / "codecs")
    train(experiment, tmp_path / "cut", tmp_path / "data", say=quiet)
    assert fingerprint(tmp_path / "cut", 4) == fingerprint(tmp_path / "run", 4)


def test_a_mixture_of_other_columns(tmp_path):
    text = LocalFiles(table(tmp_path / "a.jsonl", 3), table(tmp_path / "b.jsonl", 3), target="text")
    pairs = dataclasses.replace(text, source="title")
    with pytest.raises(ValueError, match="has the columns 'source', 'target', but the first part has 'target'"):
        prepare(Mixture((text, pairs), (1.0, 1.0)), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.json"))
