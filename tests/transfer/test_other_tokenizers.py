"""Initialization from a run with another tokenizer: rows of embedding tables are copied by matching pieces."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from seqlab import catalogue
from seqlab.codecs.label import Label
from seqlab.codecs.sentencepiece import train_sentencepiece
from seqlab.codecs.symbols import Symbols
from seqlab.config import Text
from seqlab.encoders.mean import MeanEncoder
from seqlab.models.classifier_head import ClassifierHead
from seqlab.parametrizations.lora import Lora
from seqlab.readers.words import Words
from seqlab.runs import checkpoint, manifest
from seqlab.runs.initialize import load_model, load_parts
from seqlab.runs.parameters import axes_of, init_model_parameters
from seqlab.runs.pieces import PieceAxis, codec_of, copy_matching, piece_axes
from seqlab.system.errors import SeqlabError
from seqlab.training.train import train
from tests.transfer.subjects import OLD, bert, classifying, moods, pretrained

NEW = train_sentencepiece(["the dog ran to the cat", "a bird"], Text("bpe", 290 + 14))
SAME_SIZE = train_sentencepiece(["quick brown foxes jump", "over lazy hounds"], Text("bpe", 290 + 10))


def resolved(codec, experiment=None):
    codecs = {"source": codec, "label": Label(("x", "y"))}
    return catalogue.resolve(experiment or classifying(), codecs).model, codecs


def shapes_of(model):
    params = jax.eval_shape(lambda: init_model_parameters(model, 0))
    return {path: leaf.shape for path, leaf in flatten_dict(params["params"], sep="/").items()}


def matched_in_numpy(initial, names, stored, stored_names):
    """Returns what a loop over the pieces returns: the definition, slowly."""
    result = np.array(initial)
    for i, name in enumerate(names):
        if name in stored_names:
            result[i] = stored[stored_names.index(name)]
    return result


@pytest.mark.parametrize("axis", [0, 1])
def test_entries_move_with_their_pieces(axis):
    random = np.random.default_rng(0)
    stored, initial = (random.normal(size=(len(codec.names), 3)) for codec in (OLD, NEW))
    copied, count = copy_matching(
        np.moveaxis(initial, 0, axis), PieceAxis(axis, NEW), np.moveaxis(stored, 0, axis), PieceAxis(axis, OLD)
    )
    expected = matched_in_numpy(initial, NEW.names, stored, OLD.names)
    np.testing.assert_array_equal(np.moveaxis(copied, axis, 0), expected)
    assert count == len({*NEW.names} & {*OLD.names})
    assert 260 < count < len(NEW.names)


def test_a_table_belongs_to_its_reader_or_encoder():
    model, codecs = resolved(NEW)
    axes = piece_axes(model, codecs, shapes_of(model))
    assert {path: (axis, codec.digest) for path, (axis, codec) in axes.items()} == {
        "encoder/words/table": (0, NEW.digest)  # not encoder/types/table, which has two entries
    }
    transformer = catalogue.module("models", "transformer").TINY.clone(
        reader=Words(vocabulary=len(OLD.names)), vocabulary=len(NEW.names), tie="none", biases=True
    )
    axes = piece_axes(transformer, {"source": OLD, "target": NEW}, shapes_of(transformer))
    assert {path: (axis, codec.digest) for path, (axis, codec) in axes.items()} == {
        "reader/words/table": (0, OLD.digest),
        "words/table": (0, NEW.digest),
        "words/bias": (0, NEW.digest),
        "words/output/kernel": (1, NEW.digest),
    }
    declared = axes_of(transformer)
    assert {path for path in declared if "vocabulary" in declared[path].names} == axes.keys()


def test_a_table_of_several_tokenizers_is_in_doubt():
    with pytest.raises(SeqlabError, match="initialize: bias may belong to the tokenizer of any of the columns a, b,"):
        codec_of("bias", ClassifierHead(bert()), {"a": OLD, "b": NEW})
    assert codec_of("bias", ClassifierHead(bert()), {"a": OLD, "b": OLD}) == OLD
    assert codec_of("bias", ClassifierHead(bert()), {"a": OLD, "target": NEW}) == NEW
    assert codec_of("bias", ClassifierHead(bert()), {"a": Symbols(("x",))}) is None


def copied_line(count, size):
    """Returns the line about the embedding table of BERT, of whose `size` rows `count` were copied."""
    return f"encoder/words/table: copied {count:,} of {size:,} rows, those of pieces that both tokenizers have"


@pytest.mark.parametrize("codec", [OLD, SAME_SIZE], ids=["another size", "the same size"])
def test_training_starts_with_matching_rows(tmp_path, codec):
    """A run with its own tokenizer starts from an encoder with another: also if both have as many pieces."""
    stored = pretrained(tmp_path / "pre", codec)
    (tmp_path / "new.model").write_bytes(NEW.model if codec is OLD else OLD.model)
    new_codec = NEW if codec is OLD else OLD
    experiment = dataclasses.replace(
        classifying(), data=moods(tmp_path), steps=1, initialize=(("encoder", str(tmp_path / "pre"), "encoder"),)
    )
    experiment = dataclasses.replace(experiment, schedule=dataclasses.replace(experiment.schedule, peak=0.0))
    lines: list[str] = []
    train(experiment, tmp_path / "run", tmp_path / "data", tokenizer=tmp_path / "new.model", say=lines.append)
    tree = checkpoint.restore(tmp_path / "run", manifest.choose_step(tmp_path / "run", "last"))
    leaves = flatten_dict(tree["params"], sep="/")
    model, _ = resolved(new_codec)
    initial = init_model_parameters(model, experiment.seed)["params"]["encoder"]["words"]["table"]
    expected = matched_in_numpy(initial, new_codec.names, stored["params/encoder/words/table"], codec.names)
    np.testing.assert_array_equal(leaves["params/encoder/words/table"], expected)
    for path in leaves:
        if path.startswith("params/encoder/") and "words" not in path:
            np.testing.assert_array_equal(leaves[path], stored[path])
    count = len({*new_codec.names} & {*codec.names})
    assert [line for line in lines if "pieces" in line] == [copied_line(count, len(new_codec.names))]


@pytest.mark.parametrize("size", ["another", "the same"])
def test_a_whole_model_starts_with_matching_rows(size, tmp_path):
    """With --init-from and --tokenizer, the embeddings move with their pieces; other parameters are copied."""
    codec = OLD if size == "another" else SAME_SIZE
    stored = pretrained(tmp_path / "pre", codec)
    new_codec = NEW if codec is OLD else OLD
    model, codecs = resolved(new_codec)
    lines: list[str] = []
    taken = load_model(tmp_path / "pre", dataclasses.replace(classifying(), model=model), codecs, lines.append)
    initial = init_model_parameters(model, classifying().seed)["params"]["encoder"]["words"]["table"]
    expected = matched_in_numpy(initial, new_codec.names, stored["params/encoder/words/table"], codec.names)
    np.testing.assert_array_equal(taken.pop("params/encoder/words/table"), expected)
    assert taken.keys() == stored.keys() - {"params/encoder/words/table"}
    assert all(np.array_equal(leaf, stored[path]) for path, leaf in taken.items())
    count = len({*new_codec.names} & {*codec.names})
    assert lines == [copied_line(count, len(new_codec.names))]


def test_a_whole_model_may_lack_adapters(tmp_path):
    stored = pretrained(tmp_path / "pre", OLD)
    adapted = dataclasses.replace(classifying(), model=ClassifierHead(bert(adapter=3)))
    model, codecs = resolved(OLD, adapted)
    adapted, lines = dataclasses.replace(adapted, model=model), []
    taken = load_model(tmp_path / "pre", adapted, codecs, lines.append)
    assert taken.keys() == stored.keys()
    assert all(np.array_equal(leaf, stored[path]) for path, leaf in taken.items())
    (line,) = lines
    assert line.startswith("new: 8 arrays, encoder/stack/stack_0/feed_forward_adapter/bottleneck/inner/bias, ")
    shared = dataclasses.replace(adapted, parametrization=Lora(), references=(("base", "../pre"),))
    with pytest.raises(
        SeqlabError, match="pre has a different model: .*adapter.* is missing in the run, .*: use the model of"
    ):
        load_model(tmp_path / "pre", shared, codecs, print)


@pytest.mark.parametrize("encoder", [bert().clone(dim=12), bert().clone(hidden=14), MeanEncoder(Words(), dim=8)])
def test_a_different_model_is_refused(tmp_path, encoder):
    """A run with parameters of other shapes, or with more parameters, is refused, also with another tokenizer."""
    pretrained(tmp_path / "pre", OLD)
    for codec in (OLD, NEW):
        model, codecs = resolved(codec, dataclasses.replace(classifying(), model=ClassifierHead(encoder)))
        with pytest.raises(SeqlabError, match="pre has a different model: "):
            load_model(tmp_path / "pre", dataclasses.replace(classifying(), model=model), codecs, print)


def test_tokenizers_of_equal_size_are_not_equal(tmp_path):
    stored = pretrained(tmp_path / "pre", OLD)["params/encoder/words/table"]
    model, codecs = resolved(SAME_SIZE)
    params, pieces = init_model_parameters(model, 0), piece_axes(model, codecs, shapes_of(model))
    taken = load_parts(
        (("encoder/words", str(tmp_path / "pre"), "encoder/words"),), tmp_path, params, print, (), pieces
    )
    initial = params["params"]["encoder"]["words"]["table"]
    expected = matched_in_numpy(initial, SAME_SIZE.names, stored, OLD.names)
    np.testing.assert_array_equal(taken["params/encoder/words/table"], expected)
    assert initial.shape == stored.shape


def test_equal_tokenizers_copy_all_entries(tmp_path):
    stored = pretrained(tmp_path / "pre", OLD)
    model, codecs = resolved(OLD)
    params = init_model_parameters(model, 0)
    lines: list[str] = []
    parts = (("encoder", str(tmp_path / "pre"), "encoder"),)
    taken = load_parts(parts, tmp_path, params, lines.append, pieces=piece_axes(model, codecs, shapes_of(model)))
    np.testing.assert_array_equal(taken["params/encoder/words/table"], stored["params/encoder/words/table"])
    assert not any("pieces" in line for line in lines)


def test_what_does_not_fit_is_refused(tmp_path):
    pretrained(tmp_path / "pre", OLD)
    wider = dataclasses.replace(classifying(), model=ClassifierHead(bert().clone(dim=12)))
    model, codecs = resolved(NEW, wider)
    parts = (("encoder/words", str(tmp_path / "pre"), "encoder/words"),)
    params, pieces = init_model_parameters(model, 0), piece_axes(model, codecs, shapes_of(model))
    with pytest.raises(SeqlabError, match=r"table is \(300, 8\) in .*, but \(304, 12\) here: use the same sizes"):
        load_parts(parts, tmp_path, params, print, pieces=pieces)
    model, codecs = resolved(OLD)
    parts = (("encoder/words", str(tmp_path / "pre"), "encoder/stack/stack_0/self_norm"),)
    pieces = {"encoder/words/scale": PieceAxis(0, NEW)}
    like = {"params": {"encoder": {"words": {"scale": np.zeros(8, np.float32)}}}}
    with pytest.raises(SeqlabError, match="encoder/words/scale has no tokenizer in .*: initialize smaller parts"):
        load_parts(parts, tmp_path, like, print, pieces=pieces)
