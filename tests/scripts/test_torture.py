"""Torture: it distributes kills evenly, kills in the reported phase, and detects losses."""

import contextlib
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import torture
from torture_campaign import Campaign, kill, wait_for_phase
from torture_evidence import differences, evidence
from torture_experiments import experiment_of, write_documents
from torture_victim import LENGTHS, PHASES, make_marks, phases_under_way, read_marks

from seqlab import catalogue
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import checkpoint, manifest, saving
from seqlab.system.files import write_atomically
from tests.command import save_untrained

# Enters all phases three times, and stays in one of them the nth time.
PROCESS = """
import sys, time
import numpy as np
path, *numbers = sys.argv[1:]
phases, length, stay, nth = map(int, numbers)
marks = np.memmap(path, np.int64, "r+", shape=(phases, length))
for i in range(3):
    for number, row in enumerate(marks):
        row[0] += 1
        time.sleep(3600 if (number, i + 1) == (stay, nth) else 0)
        row[1] += 1
"""


@pytest.mark.parametrize("kills", [25, 50, 137])
def test_deal(kills):
    names = catalogue.names("models")
    dealt = torture.deal(kills, names, random.Random(kills))
    assert list(dealt) == names
    assert all(dealt.values())
    times = Counter(phase for targets in dealt.values() for phase in targets)
    assert set(times) == set(PHASES)
    assert max(times.values()) - min(times.values()) <= 1
    assert sum(times.values()) == kills
    for targets in dealt.values():
        places = [min(PHASES.index(phase), 2) for phase in targets]
        assert places == sorted(places)  # phases that occur once per run come first


@pytest.mark.parametrize("name", catalogue.names("models"))
def test_every_model_has_an_experiment(name, tmp_path):
    """The experiment fits the model and is small, also for new models."""
    experiment = experiment_of(name, str(tmp_path))
    catalogue.check_parts(experiment)
    assert isinstance(experiment.model, experiment.task.model)
    assert experiment.steps // experiment.validation.every >= 3
    assert experiment.hash_every == 1


@contextlib.contextmanager
def staying_process(folder: Path, phase: str, nth: int) -> Iterator[tuple[subprocess.Popen[bytes], np.ndarray]]:
    """Yields a process that stays in a phase, and its marks."""
    path, shape = folder / "marks", (len(PHASES), 2 + LENGTHS)
    make_marks(path)
    numbers = map(str, (*shape, PHASES.index(phase), nth))
    process = subprocess.Popen([sys.executable, "-c", PROCESS, str(path), *numbers], start_new_session=True)
    yield process, read_marks(path)
    kill([process])


@pytest.mark.parametrize(("phase", "nth"), [("save", 1), ("data preparation", 2)])
def test_kills_in_the_phase_it_aims_at(tmp_path, phase, nth):
    with staying_process(tmp_path, phase, nth) as (process, marks):
        assert wait_for_phase([process], marks, phase, nth, [10_000_000], random.Random(0))
        kill([process])
        assert process.returncode == -9
        assert phases_under_way(marks) == [phase]
        assert marks[PHASES.index(phase), 0] == nth


def test_a_phase_that_is_not_reached(tmp_path):
    with staying_process(tmp_path, "step", 4) as (process, marks):
        assert not wait_for_phase([process], marks, "step", 4, [1], random.Random(0))
        assert process.wait() == 0


def make_home(home: Path) -> Path:
    """Creates the files of a tiny run and its data."""
    run, cache = home / "run", home / "data" / "cache"
    cache.mkdir(parents=True)
    experiment = tiny_experiment()
    save_untrained(experiment, dict.fromkeys(("source", "target"), tiny_tokenizer()), run)
    progress = {"epoch": 1, "index": 3, "left_out": [], "best": 2.5, "best_step": 1, "waited": 1, "stopped": False}
    manifest.write_manifest(run, 1, progress, manifest.read_manifest(run, 1)["files"])
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    (run / "hashes.jsonl").write_text('{"step": 1}\n')
    (run / "command.txt").write_text(f"cd {home}\n")
    np.arange(9, dtype="<i4").tofile(cache / "source.ids")
    return home


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("homes")
    return make_home(folder / "whole"), make_home(folder / "killed")


def test_equal_runs_are_equal(homes):
    whole, killed = homes
    files = [{path.name for path in (home / "run").rglob("*")} for home in homes]
    assert files[0] != files[1]  # Orbax chooses random names, so files cannot be compared directly
    assert differences(evidence(whole), evidence(killed)) == []


def lose_progress(run: Path, **changed: int) -> None:
    content = manifest.read_manifest(run, 1)
    manifest.write_manifest(run, 1, {**content["progress"], **changed}, content["files"])


def change_a_parameter(run: Path) -> None:
    progress = manifest.read_manifest(run, 1)["progress"]
    tree = checkpoint.restore(run, 1)
    leaf = jax.tree.leaves(tree["params"])[0]
    leaf.flat[0] = np.nextafter(leaf.flat[0], np.float32(9))
    saver = saving.Saver(run, 1)
    saver.save(tree, 1, progress)
    saver.close()


TOKENIZER = "run/codecs/source+target.sentencepiece"
LOSSES = {
    "the cursor": (lambda home: lose_progress(home / "run", index=0), "progress at step 1"),
    "patience": (lambda home: lose_progress(home / "run", waited=0), "progress at step 1"),
    "a checkpoint": (lambda home: (home / "run/checkpoints/1/manifest.json").unlink(), "fingerprint of step 1"),
    "a line of the log": (lambda home: (home / "run/metrics.jsonl").write_text(""), "run/metrics.jsonl"),
    "a line too many": (
        lambda home: (home / "run/metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n' * 2),
        "run/metrics.jsonl",
    ),
    "a hash": (lambda home: (home / "run/hashes.jsonl").write_text('{"step": 2}\n'), "run/hashes.jsonl"),
    "the tokenizer": (lambda home: (home / TOKENIZER).write_bytes(b""), TOKENIZER),
    "an id": (lambda home: np.zeros(9, "<i4").tofile(home / "data/cache/source.values"), "data/cache/source.values"),
    "half of something left": (lambda home: write_atomically(home / "data/cache/x.part", ""), "data/cache/x.part"),
    "a bit of a parameter": (lambda home: change_a_parameter(home / "run"), "fingerprint of step 1"),
}


@pytest.mark.parametrize(("lose", "name"), LOSSES.values(), ids=LOSSES)
def test_what_is_lost_is_seen(homes, tmp_path, lose, name):
    shutil.copytree(homes[1], tmp_path / "home")
    lose(tmp_path / "home")
    assert name in differences(evidence(homes[0]), evidence(tmp_path / "home"))


@pytest.mark.long
def test_five_kills(tmp_path, capsys):
    assert torture.main(["5", "--only", "tagger_head", "--folder", str(tmp_path / "folder")]) == 0
    printed = capsys.readouterr().out
    assert "| all | 5 | 5 | 5 | 0 |" in printed
    assert "LOST" not in printed


@pytest.mark.long
@pytest.mark.parametrize(("bug", "reason"), [("cursor", "fingerprint of step 24"), ("log", "run/metrics.jsonl")])
def test_planted_bugs_are_found(tmp_path, bug, reason):
    """A run that resumes with a planted bug is reported as lost, and its folder is kept."""
    write_documents(tmp_path / "documents")
    messages: list[str] = []
    targets = ["evaluation"] * 4
    result = Campaign("tagger_head", "jit", tmp_path, random.Random(1), bug, messages.append).run(targets)
    assert result.lost
    assert reason in result.reasons[0]
    assert any(line.startswith("LOST") for line in messages)
    assert list(tmp_path.glob("*/killed-*/run/metrics.jsonl"))
