"""Word tagging and pairs of texts, from files to predictions, and their metric."""

import dataclasses
import json

import numpy as np
import pytest

from seqlab.codecs.sentencepiece import train_sentencepiece
from seqlab.codecs.symbols import Symbols
from seqlab.config import Text
from seqlab.data.corpus import Corpus
from seqlab.data.plans import BatchPlan
from seqlab.encoders.kim import KimEncoder
from seqlab.metrics.registry import score
from seqlab.metrics.span_f1 import spans_of
from seqlab.models.classifier_head import ClassifierHead
from seqlab.models.tagger_head import TaggerHead
from seqlab.runs import loading
from seqlab.system.errors import SeqlabError
from seqlab.tasks.pair_classification import PairClassification
from seqlab.tasks.word_tagging import WordTagging
from seqlab.training.train import train
from tests.command import call
from tests.proofs.runs import check_run, quiet, small
from tests.transfer.splits import splits_of, write_rows, write_splits
from tests.transfer.subjects import ENCODER

BPE = Text("bpe", 300)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-a I-a O", {("a", 1, 3)}),
        ("B-a B-a I-b I-b", {("a", 0, 1), ("a", 1, 2), ("b", 2, 4)}),
        ("I-a I-a", {("a", 0, 2)}),
        ("B-a O I-a", {("a", 0, 1), ("a", 2, 3)}),
        ("B I O", {("", 0, 2)}),
        ("", set()),
    ],
)
def test_spans(tags, expected):
    assert spans_of(tags.split()) == expected


def test_span_f1():
    """A span counts only with its exact words and label."""
    expected = ["O B-a I-a O B-b", "B-a O", "O O"]
    predicted = ["O B-a I-a O O", "B-b O", "B-a O"]
    (result,) = score("span_f1", predicted, [expected])
    correct, in_prediction, in_reference = 1, 3, 3
    assert result.value == pytest.approx(100 * 2 * correct / (in_prediction + in_reference))
    assert score("span_f1", expected, [expected])[0].value == 100
    assert score("span_f1", ["O O"], [["O O"]])[0].value == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with tables of tagged texts and of pairs."""
    home = tmp_path_factory.mktemp("heads")
    random = np.random.default_rng(0)

    def row(_):
        words = random.choice(["warm", "cold", "rainy", "12"], random.integers(1, 6))
        text = " ".join(words)
        tags = " ".join("B-number" if word == "12" else "O" for word in words)
        second = " ".join(random.permutation(words))
        return {"text": text, "tags": tags, "second": second, "same": str(text == second)}

    write_splits(home, row, (80, 8, 8))
    return home


def tagging(home):
    encoder = KimEncoder(dim=8, widths=(2, 3), filters=4, dropout=0.0)
    return small(TaggerHead(encoder), WordTagging(), splits_of(home, source="text", label="tags"), text=BPE)


def pairing(home):
    data = splits_of(home, source="text", label="same", further_columns=(("second", "second"),))
    return small(ClassifierHead(ENCODER, dropout=0.0), PairClassification(), data, text=BPE)


@pytest.mark.parametrize("make", [tagging, pairing])
def test_it_learns_resumes_and_is_the_same_on_devices(home, make):
    experiment = make(home)
    train(experiment, home / make.__name__, home / "data", say=quiet)
    check_run(experiment, home / make.__name__, home / "data")


def test_a_label_for_each_word(home, capsys):
    (home / "lines.txt").write_text("warm 12 cold\n12\nunbekanntes Wort\n")
    assert call(home, "predict", "tagging", "--input", "lines.txt") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [len(line.split()) for line in lines] == [3, 1, 2]
    assert call(home, "evaluate", "tagging", "--data-dir", "data", "--json") == 0
    names = {score["name"] for score in json.loads(capsys.readouterr().out)["scores"]}
    assert {"span F1", "exact match"} <= names


def test_targets_are_at_the_first_token_of_each_word():
    tokenizer = train_sentencepiece(["warm cold rainy 12"] * 5, BPE)
    labels = Symbols(("B-number", "O"))
    source, tags = tokenizer.encode(["warm 12 xyz"])[0], labels.encode(["O B-number O"])[0]
    corpus = Corpus(
        {"source": np.array(source, np.int32), "label": np.array(tags, np.int32)},
        {"source": np.array([0, len(source)]), "label": np.array([0, 3])},
    )
    batch_plan = BatchPlan(np.array([0]), (len(source) + 2,), 2)
    batch = WordTagging().collate(corpus, batch_plan, {"source": tokenizer, "label": labels})
    places = np.flatnonzero(batch.weights[0])
    assert [tokenizer.names[source[i]][0] for i in places] == ["\u2581"] * 3
    np.testing.assert_array_equal(batch.targets[0][places], tags)
    assert not batch.weights[1].any()
    short = Corpus(corpus.values, {**corpus.offsets, "label": np.array([0, 2])})
    with pytest.raises(SeqlabError, match="example 1 has 3 words but 2 labels"):
        WordTagging().collate(short, batch_plan, {"source": tokenizer, "label": labels})


def test_malformed_examples_are_found_before_training(home, tmp_path):
    """Two examples of the validation split have more labels than words."""
    rows = [json.loads(line) for line in (home / "validation.jsonl").read_text().splitlines()]
    rows[2]["tags"], rows[5]["tags"] = "O " * 9, "O " * 8
    broken = tmp_path / "validation.jsonl"
    write_rows(broken, rows)
    experiment = tagging(home)
    data = dataclasses.replace(experiment.data, validation=str(broken))
    words = len(rows[2]["text"].split())
    message = (
        f"split validation: example 3 has {words} words but 9 labels: .*; 2 examples of this split are malformed"
    )
    with pytest.raises(SeqlabError, match=message):
        train(dataclasses.replace(experiment, data=data), tmp_path / "run", home / "data", say=quiet)
    assert not (tmp_path / "run").exists()


def test_one_tokenizer_for_both_texts(home):
    data = splits_of(home, source="text", label="same", further_columns=(("second", "tags"),))
    experiment = dataclasses.replace(pairing(home), data=data, text=Text("char", joint=False))
    with pytest.raises(SeqlabError, match="'source' and 'second' need one tokenizer: set text.joint to True"):
        train(experiment, home / "separate", home / "data", say=quiet)


def test_pairs_are_predicted_from_tables(home, capsys):
    (home / "pairs.tsv").write_text("source\tsecond\nwarm cold\twarm cold\nwarm\tcold\n")
    assert call(home, "predict", "pairing", "--input", "pairs.tsv", "--json") == 0
    predictions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [prediction["text"] in ("True", "False") for prediction in predictions] == [True, True]
    run = loading.load(home / "pairing")
    task, codecs = run.experiment.task, run.codecs
    first, second = (codecs["source"].encode([text])[0] for text in ("warm cold", "cold"))
    (row,) = task.joined([first], [second], codecs["source"].eos)
    assert row.tolist() == [*first, codecs["source"].eos, *second, codecs["source"].eos]
    assert codecs["source"] == codecs["second"]
    assert call(home, "predict", "pairing", "--input", "lines.txt") == 2
    assert "give them in a .tsv or .jsonl file" in capsys.readouterr().err
