"""`seqlab embed`: a vector for each line, which equals the summary of the line alone."""

import dataclasses
import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.cli.embedding import embed
from seqlab.codecs.label import Label
from seqlab.data.padding import pad_inputs
from seqlab.decoding import embeddings
from seqlab.decoding.trained import TrainedModel
from seqlab.encoders.bert import BertEncoder
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.models.classifier_head import ClassifierHead
from seqlab.models.masked_lm import MaskedLM
from seqlab.readers.words import Words
from seqlab.runs import loading
from seqlab.runs.parameters import init_model_parameters
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.tasks.masked_tokens import MaskedTokens
from tests.command import call, save_untrained

LONGEST = 23  # tokens, besides the position of the summary
LINES = ["a b c", "", "b\tb a", "x y z 3", "a"] * 15  # more than a batch


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a classifier, a masked language model and a translation model."""
    home = tmp_path_factory.mktemp("embed")
    encoder = BertEncoder(Words(), layers=1, dim=8, heads=2, hidden=12, max_length=LONGEST + 1)
    classifier = dataclasses.replace(tiny_experiment(), model=ClassifierHead(encoder), task=Classification())
    codecs = {"source": tiny_tokenizer(), "label": Label(("x", "y"))}
    save_untrained(classifier, codecs, home / "classifier", 1, 0.1)
    masked = dataclasses.replace(tiny_experiment(), model=MaskedLM(encoder), task=MaskedTokens())
    save_untrained(masked, {"source": tiny_tokenizer(("[MASK]",))}, home / "masked", 2)
    save_untrained(tiny_experiment(), dict.fromkeys(("source", "target"), tiny_tokenizer()), home / "translation")
    (home / "in.txt").write_text("".join(f"{line}\n" for line in LINES))
    return home


def summaries_alone(folder, lines):
    """Returns the summary of each line, computed by the encoder alone and without padding."""
    run = loading.load(folder)
    encoder, params = run.model.encoder, {"params": run.params["params"]["encoder"]}
    rows = run.codecs["source"].encode([line.replace("\t", "\n") for line in lines])
    encode = jax.jit(lambda params, inputs: encoder.apply(params, inputs, train=False, method="encode").summary)
    inputs = [pad_inputs([row], run.codecs["source"], max(len(row), 1), 1) for row in rows]
    return np.concatenate([encode(params, row_inputs) for row_inputs in inputs])


@pytest.mark.parametrize("window", [embeddings.WINDOW, 7])
def test_vectors_equal_those_of_lines_alone(home, monkeypatch, window, capsys):
    monkeypatch.setattr(embeddings, "WINDOW", window)
    assert call(home, "embed", "classifier", "--input", "in.txt", "--output", "out.npy") == 0
    assert capsys.readouterr().out == f"out.npy: {len(LINES)} vectors of 8 numbers\n"
    vectors = np.load(home / "out.npy")
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(LINES), 8)
    np.testing.assert_allclose(vectors, np.tile(summaries_alone(home / "classifier", LINES[:5]), (15, 1)), atol=1e-5)
    assert len(np.unique(vectors.round(4), axis=0)) == 5


def test_a_masked_language_model_and_a_compressed_file(home):
    with gzip.open(home / "in.gz", "wt") as stream:
        stream.write("a b\nc\n")
    embed(home / "masked", home / "in.gz", home / "masked.npy", checkpoint="1")
    np.testing.assert_allclose(
        np.load(home / "masked.npy"), summaries_alone(home / "masked", ["a b", "c"]), atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "empty.txt"), "empty.txt is empty: there is no line to embed"),
        (("--input", "nowhere.txt"), "--input nowhere.txt: no such file: check the path"),
        (("--input", "classifier"), "--input classifier: this is a folder: give a file"),
        (("--input", "/dev/null"), "--input /dev/null: this is not a file and cannot be read twice"),
        (("--output", "no/out.npy"), "no/out.npy cannot be written because the folder no does not exist: "),
        (("--output", "out.txt"), "--output out.txt: the name of the output must end in .npy"),
        (("--input", "long.txt"), f"long.txt:2: 24 tokens, but the model reads at most {LONGEST}: shorten the line"),
        (("--input", "bytes.txt"), "bytes.txt:2: "),
        (("--checkpoint", "7"), ""),
    ],
)
def test_one_clear_error(home, arguments, message, capsys):
    """Nothing is written, and a previous output remains."""
    (home / "empty.txt").write_text("")
    (home / "long.txt").write_text(f"a\n{'3' * 24}\n")
    (home / "bytes.txt").write_bytes(b"a\n\xff\n")
    (home / "kept.npy").write_bytes(b"previous")
    given = {"--input": "in.txt", "--output": "kept.npy"} | {arguments[0]: arguments[1]}
    before = sorted(home.iterdir())
    assert call(home, "embed", "classifier", *(word for pair in given.items() for word in pair)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"seqlab: {message}")
    assert error.count("\n") == 1
    assert (home / "kept.npy").read_bytes() == b"previous"
    assert sorted(home.iterdir()) == before


def test_models_without_an_encoder_of_lines(home):
    with pytest.raises(SeqlabError, match="Transformer has no encoder as a field: embed with a run of a head on an"):
        embed(home / "translation", home / "in.txt", home / "none.npy")
    bahdanau = catalogue.module("models", "bahdanau").TINY
    with pytest.raises(SeqlabError, match="Bahdanau has no encoder as a field"):
        embeddings.column_of(bahdanau)


def trained_classifier():
    """Returns a model with random parameters, without a run."""
    encoder = BertEncoder(Words(), layers=1, dim=8, heads=2, hidden=12, max_length=LONGEST + 1)
    experiment = dataclasses.replace(tiny_experiment(), model=ClassifierHead(encoder), task=Classification())
    codecs = {"source": tiny_tokenizer(), "label": Label(("x", "y"))}
    model = catalogue.resolve(experiment, codecs).model
    return TrainedModel(experiment.task, model, init_model_parameters(model, 0), codecs)


def test_the_summary_is_that_of_the_encoder():
    trained = trained_classifier()
    row = np.int32(trained.codecs["source"].encode(["x y z"])[0])
    (vectors,) = embeddings.embeddings_of(trained, "source", ["x y z"], "in.txt")
    encoder, params = trained.model.encoder, {"params": trained.params["params"]["encoder"]}
    inputs = jax.tree.map(jnp.asarray, pad_inputs([row], trained.codecs["source"], len(row), 1))
    np.testing.assert_allclose(
        vectors, encoder.apply(params, inputs, train=False, method="encode").summary, atol=1e-5
    )


def test_long_lines_are_named():
    """The longest line that the model reads is embedded; a longer one is named, in any window."""
    trained, lines = trained_classifier(), ["3" * LONGEST, "a", "b", "3" * (LONGEST + 1)]
    rows = embeddings.rows_of(trained, "source", lines[:3], "in.txt", 1)
    assert len(rows[0]) == LONGEST
    windows = embeddings.WINDOW
    embeddings.WINDOW = 2
    try:
        message = ""
        try:
            list(embeddings.embeddings_of(trained, "source", lines, "in.txt"))
        except SeqlabError as error:
            message = str(error)
        assert message.startswith("in.txt:4: 24 tokens, but the model reads at most 23")
    finally:
        embeddings.WINDOW = windows


def test_a_file_that_changes_meanwhile(home, monkeypatch):
    run, lines = loading.load(home / "classifier").trained, iter([["a", "b"], ["a"]])
    monkeypatch.setattr(embeddings, "read_lines", lambda source: iter(next(lines)))
    with pytest.raises(SeqlabError, match="in.txt had 2 lines and now has 1: embed it again"):
        embeddings.embed_file(run, home / "in.txt", home / "changed.npy")
    assert not (home / "changed.npy").exists()
