"""Distillation from a teacher: a frozen reference in the loss."""

import dataclasses
import shutil

import pytest

from seqlab import catalogue
from seqlab.laws.training import tiny_experiment
from seqlab.runs import loading
from seqlab.system.errors import SeqlabError
from seqlab.tasks.distillation import Distillation
from seqlab.training.train import train
from tests.command import call
from tests.proofs.runs import check_run, losses_of, quiet

SETTINGS = {"steps": 8, "log_every": 1, "hash_every": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a teacher and a student of different sizes."""
    home = tmp_path_factory.mktemp("distillation")
    train(teaching(), home / "teacher", home / "data", say=quiet)
    train(learning(), home / "student", home / "data", say=quiet)
    return home


def teaching():
    tiny = tiny_experiment()
    validation = dataclasses.replace(tiny.validation, every=4)
    return dataclasses.replace(tiny, validation=validation, model=tiny.model.clone(dropout=0.0), **SETTINGS)


def learning(**changes):
    model = catalogue.without_sizes(catalogue.module("models", "bahdanau").TINY.clone(tie="all", dropout=0.0))
    references = (("teacher", "../teacher"),)
    return dataclasses.replace(teaching(), model=model, task=Distillation(), references=references, **changes)


def test_it_learns_resumes_and_is_the_same_on_devices(home):
    check_run(learning(), home / "student", home / "data")


def test_the_teacher_matters(home, tmp_path):
    """A different teacher gives a different student, so the loss depends on its distribution."""
    misplaced = dataclasses.replace(learning(), references=(("teacher", str(home / "student")),))
    train(misplaced, tmp_path / "misplaced", home / "data", say=quiet)
    assert losses_of(tmp_path / "misplaced") != losses_of(home / "student")


def test_paths_are_relative_to_the_run_or_to_base(home, capsys):
    """Evaluation needs the teacher; decoding does not."""
    (home / "elsewhere").mkdir()
    (home / "student").rename(home / "elsewhere" / "student")
    (home / "teacher").rename(home / "the-teacher")
    try:
        assert loading.load(home / "elsewhere" / "student").translate(["1"])
        arguments = ["evaluate", "elsewhere/student", "--data-dir", "data", "--beam", "1"]
        assert call(home, *arguments) == 2
        error = capsys.readouterr().err
        assert "reference teacher: elsewhere/teacher is not a run" in error
        assert "--base DIR" in error
        (home / "the-teacher").rename(home / "teacher")
        assert call(home, *arguments, "--base", "student") == 0
        assert "perplexity" in capsys.readouterr().out
    finally:
        (home / "elsewhere" / "student").rename(home / "student")


def test_a_teacher_that_has_changed(home, tmp_path):
    """A run cannot be resumed with a different teacher."""
    run = tmp_path / "student"
    experiment = dataclasses.replace(learning(), references=(("teacher", str(home / "teacher")),))
    train(experiment, run, home / "data", say=quiet)
    shutil.move(home / "teacher", home / "kept")
    shutil.copytree(home / "student", home / "teacher")
    try:
        with pytest.raises(SeqlabError, match="the reference teacher of .* has changed since the run started"):
            train(experiment, run, home / "data", say=quiet)
    finally:
        shutil.rmtree(home / "teacher")
        shutil.move(home / "kept", home / "teacher")


def test_another_vocabulary(home, tmp_path):
    """The teacher and the student must have the same ids."""
    resized = dataclasses.replace(learning(), text=dataclasses.replace(learning().text, size=310))
    resized = dataclasses.replace(resized, references=(("teacher", str(home / "teacher")),))
    with pytest.raises(
        SeqlabError, match="has a different codec for the column 'source': use the codec of that run with --tokenizer"
    ):
        train(resized, tmp_path / "resized", home / "data", say=quiet)
