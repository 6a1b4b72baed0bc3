"""Marian folders, compared with a plain NumPy model of their contents, in both directions."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from seqlab.decoding.log_probs import line_log_probs
from seqlab.interop import marian
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import loading
from tests.command import call, save_untrained
from tests.oracles.marian import log_probs

LINES = ["one two", "1 2 3", "Monday, the 7th"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Exports of two runs with large parameters, one with the biases and activation of Marian and one without."""
    home = tmp_path_factory.mktemp("home")
    for name, more in (("run", {}), ("biased", {"biases": True, "activation": "swish"})):
        experiment = tiny_experiment()
        experiment = dataclasses.replace(experiment, model=experiment.model.clone(norm="post", **more))
        codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
        save_untrained(experiment, codecs, home / name, deviation=0.3)
        assert call(home, "export", name, "--to", "marian", "--out", f"{name}-marian") == 0
    return home


@pytest.mark.parametrize("name", ["run", "biased"])
def test_what_is_exported_is_the_model(home, name):
    run = loading.load(home / name)
    targets = ["two", "", "drei 4"]
    forced = line_log_probs(run.trained, LINES, targets)
    for line, (ids, values) in zip(LINES, forced, strict=True):
        source = [*run.codecs["source"].encode([line])[0], run.codecs["source"].eos]
        np.testing.assert_allclose(values, log_probs(home / f"{name}-marian", source, ids), atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_what_is_imported_is_the_model(home, tmp_path, activation):
    """The ids are permuted, the special ids are others, and the pad is a vector of zeros."""
    folder = tmp_path / "folder"
    folder.mkdir()
    arrays = load_file(home / "biased-marian" / "model.safetensors")
    del arrays[marian.FIRST_POSITION]
    config = json.loads((home / "biased-marian" / "config.json").read_text())
    numbers = json.loads((home / "biased-marian" / "vocab.json").read_text())
    order = np.random.default_rng(0).permutation(len(numbers) - 1)  # the pad stays last
    place = np.append(np.argsort(order), len(order))
    arrays[marian.TABLE] = arrays[marian.TABLE][np.append(order, len(order))]
    arrays[marian.BIAS] = arrays[marian.BIAS][:, np.append(order, len(order))]
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps({name: int(place[i]) for name, i in numbers.items()}))
    eos = int(place[config["eos_token_id"]])
    (folder / "config.json").write_text(
        json.dumps({**config, "eos_token_id": eos, "activation_function": activation})
    )
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes((home / "biased-marian" / f"{side}.spm").read_bytes())
    assert call(tmp_path, "import", "marian", "folder", "--out", "run") == 0
    run = loading.load(tmp_path / "run")
    if activation == "silu":
        (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": eos}))
    targets = ["two", "", "drei 4"]
    forced = line_log_probs(run.trained, LINES, targets)
    for line, target, (ids, values) in zip(LINES, targets, forced, strict=True):
        assert ids[-1] == eos
        assert run.codecs["target"].decode(ids) == target
        source = [*run.codecs["source"].encode([line])[0], eos]
        np.testing.assert_allclose(values, log_probs(folder, source, ids), atol=1e-4)


def test_out_and_in_again(home, capsys):
    """The imported run has the same texts, scores and alignments, and can be exported again."""
    assert call(home, "import", "marian", "run-marian", "--out", "again") == 0
    assert "Transformer" in capsys.readouterr().out
    first, again = (loading.load(home / name) for name in ("run", "again"))
    assert again.experiment.search.forbid == ("<pad>",)
    options = {"beam": 3, "max_length": 9, "preset": "hf", "alpha": 1.0}
    for before, after in zip(first.write(LINES, 3, **options), again.write(LINES, 3, **options), strict=True):
        assert [text for text, *_ in before] == [text for text, *_ in after]
        np.testing.assert_allclose([score for _, score, *_ in before], [score for _, score, *_ in after], rtol=1e-4)
    assert call(home, "export", "again", "--to", "marian", "--out", "twice-marian") == 0
    assert call(home, "import", "marian", "twice-marian", "--out", "twice") == 0
    assert loading.load(home / "twice").translate(LINES, **options) == first.translate(LINES, **options)


def test_a_search_as_a_program(home):
    """The exported program returns the texts of the run in another process, from the files alone."""
    assert call(home, "export", "run", "--to", "stablehlo", "--out", "program", "--rows", "3", "--length", "16") == 0
    program = jax.export.deserialize(bytearray((home / "program" / "search.jax").read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    assert "stablehlo" in (home / "program" / "search.mlir").read_text()
    signature = json.loads((home / "program" / "signature.json").read_text())
    run = loading.load(home / "run")
    arrays = load_file(home / "program" / "parameters.safetensors")
    tokenizer = run.codecs["source"]
    sources = [[*ids, tokenizer.eos] for ids in tokenizer.encode(LINES)]
    given = dict(arrays)
    given |= {"['requests'].inputs.ids": np.array([ids + [0] * (16 - len(ids)) for ids in sources], np.int32)}
    given |= {"['requests'].inputs.mask": np.array([[i < len(ids) for i in range(16)] for ids in sources])}
    given |= {"['requests'].prompt.ids": np.ones((3, 1), np.int32), "['requests'].prompt.mask": np.ones((3, 1), bool)}
    given |= {"['requests'].limit": np.full(3, 16, np.int32), "['weights'].alpha": np.float32(0.6)}
    arguments = []
    for argument in signature["arguments"]:
        arguments.append(given.pop(argument["name"], np.zeros(argument["shape"], argument["dtype"])))
        assert (str(arguments[-1].dtype), list(arguments[-1].shape)) == (argument["dtype"], argument["shape"])
    assert not given
    result = program.call(*arguments)
    texts = [tokenizer.decode(tokens[0, : size[0]].tolist()) for tokens, size in zip(
        np.asarray(result["tokens"]), np.asarray(result["lengths"]), strict=True
    )]  # fmt: skip
    assert texts == run.translate(LINES, max_length=16)


def edited(home, folder, change):
    folder.mkdir()
    for path in (home / "run-marian").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder)


def config(**changes):
    def change(folder):
        known = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**known, **changes}))

    return change


def without(name, replacement=None):
    def change(folder):
        (folder / name).rename(folder / (replacement or "other"))

    return change


def array_changed(folder):
    arrays = load_file(folder / "model.safetensors")
    del arrays["model.encoder.layers.0.fc1.bias"]
    save_file(arrays, folder / "model.safetensors")


def cut_short(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("config.json"), "has no config.json"),
        (without("vocab.json"), "has no vocab.json"),
        (without("source.spm"), "has no source.spm"),
        (
            without("model.safetensors", "pytorch_model.bin"),
            "pytorch_model.bin is pickled, and loading it can execute code",
        ),
        (without("model.safetensors"), "has no model.safetensors"),
        (config(model_type="bart"), "the model type is 'bart', not 'marian'"),
        (config(activation_function="tanh"), "unsupported activation 'tanh'"),
        (config(share_encoder_decoder_embeddings=False), "must share one scaled embedding table"),
        (config(decoder_ffn_dim=7), "differ in width or heads"),
        (config(vocab_size=7), "must number its 7 pieces from 0 on"),
        (config(encoder_ffn_dim=6, decoder_ffn_dim=6), "does not have the shape that config.json states"),
        (config(encoder_layers=9), "which is missing"),
        (array_changed, "needs model.encoder.layers.0.fc1.bias, which is missing"),
        (cut_short, "model.safetensors: "),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
    ],
)
def test_other_folders_are_refused(home, tmp_path, capsys, change, reason):
    edited(home, tmp_path / "folder", change)
    assert call(tmp_path, "import", "marian", "folder", "--out", "run") == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_other_runs_are_refused(home, tmp_path, capsys):
    save_untrained(tiny_experiment(), dict.fromkeys(("source", "target"), tiny_tokenizer()), tmp_path / "pre")
    assert call(tmp_path, "export", "pre", "--to", "marian", "--out", "out") == 2
    assert "norm must be 'post'" in capsys.readouterr().err
    adapted = tiny_experiment().model.clone(norm="post", adapter=3)
    experiment = dataclasses.replace(tiny_experiment(), model=adapted)
    save_untrained(experiment, dict.fromkeys(("source", "target"), tiny_tokenizer()), tmp_path / "adapted")
    assert call(tmp_path, "export", "adapted", "--to", "marian", "--out", "out") == 2
    assert "its layers have adapters" in capsys.readouterr().err
    assert call(home, "export", "run", "--to", "marian", "--out", "run-marian") == 2
    assert "run-marian already exists" in capsys.readouterr().err
    assert call(home, "import", "marian", "nowhere", "--out", "new") == 2
    assert "nowhere has no model.safetensors" in capsys.readouterr().err
