"""`seqlab distill`: the files that it writes, their continuation after an interruption, and a student of them."""

import dataclasses
import json
from pathlib import Path

import pytest

import seqlab
from seqlab import catalogue
from seqlab.config import Search
from seqlab.data.records import prepare
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.datasets.local_files import LocalFiles
from seqlab.decoding import distilled_data
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import loading
from seqlab.runs.log import read_log
from seqlab.system.errors import SeqlabError
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.training.train import train
from tests.command import call, save_untrained

DATA = CldrPhrases(train=7, validation=2, test=2)
SEARCH = Search(beam=2, max_length=6)
OPTIONS = ("--beam", "2", "--max-length", "6", "--data-dir", "data")


def save_teacher(folder: Path) -> None:
    experiment = dataclasses.replace(tiny_experiment(), data=DATA)
    save_untrained(experiment, dict.fromkeys(("source", "target"), tiny_tokenizer()), folder, 1, 0.3)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a teacher and its distilled data."""
    home = tmp_path_factory.mktemp("distilled")
    save_teacher(home / "run")
    assert call(home, "distill", "run", "--out", "new/data", *OPTIONS) == 0
    return home


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_targets_are_those_of_the_teacher(home):
    data = prepare(DATA, home / "data")
    examples = [*data.read("train")]
    rows = rows_of(home / "new/data/train.jsonl")
    assert [row["source"] for row in rows] == [example["source"] for example in examples]
    texts = seqlab.load(home / "run").translate([row["source"] for row in rows], beam=2, max_length=6)
    assert [row["target"] for row in rows] == texts
    assert texts != [example["target"] for example in examples]
    for split in ("validation", "test"):
        assert rows_of(home / f"new/data/{split}.jsonl") == [*data.read(split)]


def test_a_student_reads_the_files(home):
    teacher = catalogue.load_experiment(home / "run/experiment.json")
    files = (str(home / f"new/data/{split}.jsonl") for split in ("train", "validation", "test"))
    student = dataclasses.replace(
        teacher,
        model=teacher.model.clone(hidden=6),
        data=LocalFiles(*files, source="source", target="target", errors="replace"),
        steps=1,
    )
    (tokenizer,) = (home / "run/codecs").iterdir()
    train(student, home / "student", home / "data", tokenizer=tokenizer, say=lambda line: None)
    assert read_log(home / "student")[-1]["step"] == 1


def test_the_command_can_be_repeated(home, capsys):
    before = {path: path.read_bytes() for path in (home / "new/data").iterdir()}
    assert call(home, "distill", "run", "--out", "new/data", *OPTIONS) == 0
    assert "new/data/train.jsonl: 7 examples\n" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (home / "new/data").iterdir()} == before
    assert call(home, "distill", "run", "--out", "new/data", *OPTIONS, "--alpha", "0.3") == 2
    assert "changed: search" in capsys.readouterr().err


def test_an_interrupted_file_is_continued(tmp_path):
    """After an interruption between two windows, no example is decoded twice or left out."""
    save_teacher(tmp_path / "run")
    trained, data = loading.load(tmp_path / "run").trained, prepare(DATA, tmp_path / "data")
    distilled_data.distill(trained, SEARCH, data, tmp_path / "whole")
    decode_lines, calls = distilled_data.decode_lines, []

    def interrupted(trained, lines, search, **options):
        calls.append(lines.first)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode_lines(trained, lines, search, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distilled_data, "WINDOW", 2)
        patch.setattr(distilled_data, "decode_lines", interrupted)
        with pytest.raises(KeyboardInterrupt):
            distilled_data.distill(trained, SEARCH, data, tmp_path / "cut")
        assert [path.name for path in (tmp_path / "cut").glob("*.jsonl")] == ["train.jsonl"]
        assert len(rows_of(tmp_path / "cut/train.jsonl")) == 4
        distilled_data.distill(trained, SEARCH, data, tmp_path / "cut")
    assert calls == [1, 3, 5, 5, 7]
    for split in ("train", "validation", "test"):
        whole, cut = ((tmp_path / name / f"{split}.jsonl").read_bytes() for name in ("whole", "cut"))
        assert whole == cut


def test_what_cannot_be_distilled_is_refused(home):
    trained, data = loading.load(home / "run").trained, prepare(DATA, home / "data")
    modeling = trained._replace(task=LanguageModeling())
    with pytest.raises(SeqlabError, match="LanguageModeling does not generate targets for sources"):
        distilled_data.distill(modeling, SEARCH, data, home / "none")
    with pytest.raises(SeqlabError, match="the column 'source' contains bytes"):
        distilled_data.distill(trained, SEARCH, data._replace(bytes_columns=["source"]), home / "none")
    (home / "foreign").mkdir()
    (home / "foreign/train.jsonl").write_text("{}\n")
    with pytest.raises(SeqlabError, match="foreign/train.jsonl exists and was not written by this command"):
        distilled_data.distill(trained, SEARCH, data, home / "foreign")
    assert not (home / "none").exists()
