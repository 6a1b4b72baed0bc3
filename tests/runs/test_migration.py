"""Runs in the first format are recognized, and converted into runs that compute, decode and resume identically.

`old_runs.tar.xz` has tiny runs of every model in that format, with results of their original version: logits of fixed
inputs (every ninth of the vocabulary), texts, and losses of the steps after their last checkpoint.
"""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from seqlab import catalogue
from seqlab.laws.subject import passes
from seqlab.runs import loading, manifest
from seqlab.runs.migration import migrate
from seqlab.system.errors import SeqlabError
from seqlab.training.train import train
from seqlab.types import Frames, Tokens
from tests.command import call
from tests.mutants import Mutant, planted

ARCHIVE = Path(__file__).with_name("old_runs.tar.xz")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


with tarfile.open(ARCHIVE) as opened:
    EXPECTED = json.load(opened.extractfile("expected.json"))


def struct_of(arrays, side):
    fields = {name.partition(".")[2]: value for name, value in arrays.items() if name.startswith(f"{side}.")}
    return (Frames if "values" in fields else Tokens)(**fields) if fields else None


def check_equal(run, expected):
    """Asserts that the logits of a run equal those of its original version, up to rounding."""
    loaded, arrays = loading.load(run), np.load(run.parent / expected / "expected.npz")
    inputs, prefix = struct_of(arrays, "input"), struct_of(arrays, "prefix")
    logits = np.asarray(passes(loaded.model)[0](loaded.params, inputs, prefix))
    if logits.ndim == 3:
        mask = np.asarray((inputs if prefix is None else prefix).mask)
        logits, stored = logits[..., ::9][mask], arrays["logits"][mask]
    else:
        stored = arrays["logits"]
    assert np.abs(logits - stored).max() <= 1e-6 * np.abs(stored).max()
    return loaded


@pytest.mark.parametrize("name", EXPECTED)
def test_the_same_logits_and_texts(old, name, capsys):
    assert call(old, "migrate", name, "--out", f"{name}-new") == 0
    assert capsys.readouterr().out == f"{name}-new: checkpoints 8\n"
    loaded = check_equal(old / f"{name}-new", name)
    assert loaded.translate(EXPECTED[name]["lines"]) == EXPECTED[name]["texts"]


@pytest.mark.parametrize("name", [name for name in EXPECTED if "losses" in EXPECTED[name]])
def test_training_resumes(old, name, monkeypatch):
    """The moments of the optimizer are restored, so that the losses equal those of the uninterrupted run."""
    monkeypatch.chdir(old)
    migrate(Path(name), Path(f"{name}-resumed"), print)
    run = Path(f"{name}-resumed")
    train(catalogue.load_experiment(run / "experiment.json"), run, old / "data", say=lambda line: None)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {str(record["step"]): record["loss"] for record in records if "loss" in record}
    assert {step: losses[step] for step in EXPECTED[name]["losses"]} == pytest.approx(
        EXPECTED[name]["losses"], rel=1e-5
    )


ADVICE = "seqlab: transformer was made by an older version: convert it with `seqlab migrate transformer --out NEW`\n"


@pytest.mark.parametrize("command", [["decode"], ["evaluate"], ["average", "--last", "1"], ["check"]])
def test_an_old_run_is_named_as_such(old, command, capsys):
    name, *options = command
    assert call(old, name, "transformer", *options) == 2
    assert capsys.readouterr().err == ADVICE


def test_what_cannot_be_migrated(old, tmp_path):
    migrate(old / "sutskever", tmp_path / "new", print)
    with pytest.raises(SeqlabError, match="has the current format"):
        migrate(tmp_path / "new", tmp_path / "newer", print)
    with pytest.raises(SeqlabError, match="new already exists: choose another --out"):
        migrate(old / "sutskever", tmp_path / "new", print)
    path = old / "sutskever" / "tokenizer.model"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(SeqlabError, match="tokenizer.model: changed since the run was trained"):
        migrate(old / "sutskever", tmp_path / "other", print)
    path.write_bytes(content)
    assert not (tmp_path / "other").exists()
    with pytest.raises(SeqlabError, match="experiment.json"):
        migrate(old, tmp_path / "other", print)


def test_damaged_checkpoints_are_left_out(old, tmp_path):
    run, lines = old / "damaged", []
    shutil.copytree(old / "recurrent_lm", run)
    shutil.copytree(run / "checkpoints" / "8", run / "checkpoints" / "4")  # its manifest belongs to another step
    assert migrate(run, tmp_path / "new", lines.append) == [8]
    assert manifest.checkpoint_steps(tmp_path / "new") == [8]
    (run / "checkpoints" / "5").mkdir()
    shutil.rmtree(tmp_path / "new")
    lines.clear()
    assert migrate(run, tmp_path / "new", lines.append) == [8]
    without_manifest, damaged = lines
    assert "checkpoints/5 is incomplete: it has no manifest.json" in without_manifest
    assert damaged.startswith("omitted: ")
    shutil.rmtree(run / "checkpoints" / "8")
    with pytest.raises(SeqlabError, match=r"all checkpoints are damaged \(steps 4\): restore one"):
        migrate(run, tmp_path / "newer", lines.append)
    assert not (tmp_path / "newer").exists()


def test_the_progress_of_training(old, tmp_path):
    migrate(old / "recurrent_lm", tmp_path / "new", print)
    before, after = (manifest.verify(run, 8)["progress"] for run in (old / "recurrent_lm", tmp_path / "new"))
    assert before == after


MUTANTS = {
    "hierarchical_attention": Mutant("a forgotten layer", "runs.migration", "(word|sentence)", "(word)", ""),
    "mean_embeddings": Mutant(
        "old names of moments",
        "runs.migration",
        "return [renamed_tree(branch, rules) for branch in tree]",
        "return tree",
        "",
    ),
}
MODULES = tuple(f"seqlab.{name}" for name in ("runs.migration", "runs.loading", "training.train", "catalogue"))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught(name, old, tmp_path, monkeypatch):
    monkeypatch.chdir(old)
    with planted(MUTANTS[name], *MODULES) as modules:
        modules.migrate(Path(name), tmp_path / "new", print)
        with pytest.raises((ValueError, KeyError, TypeError)):
            modules.load(tmp_path / "new")
            experiment = modules.load_experiment(tmp_path / "new" / "experiment.json")
            modules.train(experiment, tmp_path / "new", tmp_path / "data", say=lambda line: None)
