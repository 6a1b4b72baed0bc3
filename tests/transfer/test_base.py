"""Adapters that share a base run: they store only their own parameters and the SHA-256 of the base."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from seqlab import catalogue
from seqlab.config import Optimizer
from seqlab.laws.training import tiny_experiment
from seqlab.parametrizations.lora import Lora
from seqlab.runs import checkpoint, loading, manifest
from seqlab.runs.averaging import average
from seqlab.runs.derived import merge
from seqlab.runs.quantization import quantize
from seqlab.system.errors import SeqlabError
from seqlab.training.train import train
from tests.command import call
from tests.proofs.runs import check_resume, quiet

LINES = ["eins", "zwei drei", "Montag"]


def small(**changes):
    tiny = tiny_experiment()
    validation = dataclasses.replace(tiny.validation, every=4)
    model = tiny.model.clone(dropout=0.0)
    return dataclasses.replace(
        tiny, model=model, validation=validation, steps=8, log_every=1, hash_every=1, **changes
    )


def adapting(**changes):
    return small(parametrization=Lora(rank=2), **changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a base run and two adapters."""
    home = tmp_path_factory.mktemp("base")
    train(small(), home / "base", home / "data", say=quiet)
    for seed, name in enumerate(("first", "second")):
        train(adapting(seed=seed), home / name, home / "data", init_from=home / "base", say=quiet)
    return home


def stored(run):
    step = manifest.choose_step(run, "last")
    return flatten_dict(checkpoint.restore(run, step)["params"], sep="/")


def texts(home, *arguments):
    """Returns the lines that `seqlab decode` writes."""
    (home / "lines.txt").write_text("".join(line + "\n" for line in LINES))
    output = home / "decoded.txt"
    assert call(home, "decode", *arguments, "--input", "lines.txt", "--output", str(output)) == 0
    return output.read_text().splitlines()


def test_only_own_parameters_are_stored(home):
    assert all(path.startswith("added/") for path in stored(home / "first"))
    sizes = [sum(np.size(leaf) for leaf in stored(home / name).values()) for name in ("first", "base")]
    assert sizes[0] < sizes[1] / 2
    assert dict(catalogue.load_experiment(home / "first" / "experiment.json").references) == {"base": "../base"}


def test_a_loaded_run_has_all_parameters(home):
    base, run = loading.load(home / "base"), loading.load(home / "first")
    own = checkpoint.restore(home / "first", run.step)["params"]["added"]
    expected = Lora(rank=2).apply(flatten_dict(base.params, sep="/"), own)
    for path, leaf in flatten_dict(run.params, sep="/").items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-6, atol=1e-7)


def test_it_resumes(home):
    check_resume(adapting(), home / "first", home / "data", init_from=home / "base")


def test_with_an_average(home, tmp_path):
    experiment = adapting(optimizer=Optimizer(average=0.9))
    train(experiment, tmp_path / "run", home / "data", init_from=home / "base", say=quiet)
    tree = checkpoint.restore(tmp_path / "run", 8)
    assert tree["average"].keys() == tree["params"].keys() == {"added"}
    check_resume(experiment, tmp_path / "run", home / "data", init_from=home / "base")
    assert loading.load(tmp_path / "run").translate(LINES)


def test_adapters_are_chosen_at_decoding(home):
    chosen = [texts(home, "base", "--adapter", name) for name in ("first", "second")]
    assert chosen == [texts(home, name) for name in ("first", "second")]


def test_a_run_without_a_base_is_not_an_adapter(home, capsys):
    assert call(home, "decode", "base", "--adapter", "base", "--input", "lines.txt") == 2
    assert "base has all its parameters and needs no base run" in capsys.readouterr().err


def test_a_moved_base(home, tmp_path, capsys):
    (home / "base").rename(home / "moved")
    try:
        assert call(home, "decode", "first", "--input", "lines.txt") == 2
        error = capsys.readouterr().err
        assert "first needs its base run, but base is not a run" in error
        assert "seqlab decode BASE --adapter first" in error
        assert texts(home, "moved", "--adapter", "first")
    finally:
        (home / "moved").rename(home / "base")


def test_another_base(home, capsys):
    train(small(seed=7), home / "other", home / "data", say=quiet)
    assert call(home, "decode", "other", "--adapter", "first", "--input", "lines.txt") == 2
    assert "first was trained on another base than other" in capsys.readouterr().err


def test_a_changed_base_is_noticed_when_training_resumes(home, tmp_path):
    for name in ("base", "first"):
        shutil.copytree(home / name, tmp_path / name)
    shutil.rmtree(tmp_path / "base")
    train(small(seed=3), tmp_path / "base", home / "data", say=quiet)
    longer = dataclasses.replace(adapting(), steps=12)
    with pytest.raises(SeqlabError, match="the reference base of .* has changed since the run started"):
        train(longer, tmp_path / "first", home / "data", init_from=tmp_path / "base", say=quiet)


def test_derived_runs(home, tmp_path):
    """Merged and quantized runs are complete; an averaged run still has its base, from any folder."""
    expected = texts(home, "first")
    merge(home / "first", tmp_path / "merged")
    quantize(home / "first", tmp_path / "quantized", 8)
    (tmp_path / "deep").mkdir()
    average(home / "first", 1, tmp_path / "deep" / "average")
    for name in ("merged", "quantized"):
        experiment = catalogue.load_experiment(tmp_path / name / "experiment.json")
        assert experiment.references == ()
        assert any(path.startswith("added/") for path in stored(tmp_path / name)) == (name == "quantized")
    assert texts(home, str(tmp_path / "merged")) == expected
    last = loading.load(home / "first", "last").translate(LINES)
    assert loading.load(tmp_path / "deep" / "average").translate(LINES) == last
    assert loading.load(tmp_path / "quantized").translate(LINES)


def test_other_runs_start_from_a_merged_run(home, tmp_path):
    with pytest.raises(SeqlabError, match="seqlab merge"):
        train(small(), tmp_path / "run", home / "data", init_from=home / "first", say=quiet)
    merge(home / "first", tmp_path / "merged")
    train(small(), tmp_path / "run", home / "data", init_from=tmp_path / "merged", say=quiet)


def test_evaluation_needs_no_reference_of_the_loss(home, capsys):
    """The base is not passed to the loss, and the score is that of the decoded adapter."""
    arguments = ["--data-dir", "data", "--split", "validation", "--json", "--checkpoint", "last"]
    assert call(home, "evaluate", "first", *arguments) == 0
    scores = {score["name"]: score["value"] for score in json.loads(capsys.readouterr().out)["scores"]}
    records = [json.loads(line) for line in (home / "first" / "metrics.jsonl").read_text().splitlines()]
    (*_, expected) = [record["validation perplexity"] for record in records if "validation perplexity" in record]
    assert scores["perplexity"] == pytest.approx(expected, rel=1e-5)
