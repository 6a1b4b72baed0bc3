"""`seqlab runs`: the status of runs in every state, and of damaged runs."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seqlab import catalogue
from seqlab.laws.training import tiny_experiment
from seqlab.runs import listing
from seqlab.runs.command import command_line
from tests.command import call
from tests.mutants import Mutant, planted

PROGRESS = {"judged": True, "epoch": 0, "index": 2, "best": 3.25, "best_step": 2, "waited": 0, "stopped": False}
LOCKER = (
    "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
)


def make(run: Path, checkpoint: int | None = None, logged: int = 0, **progress) -> Path:
    """Creates the files of a run of ten steps, with a patience of 3, that has made this progress."""
    run.mkdir(parents=True)
    experiment = tiny_experiment()
    validation = dataclasses.replace(experiment.validation, patience=3)
    catalogue.save_experiment(dataclasses.replace(experiment, validation=validation), run / "experiment.json")
    (run / ".lock").touch()
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {n}, "loss": 1.0}}\n' for n in range(1, logged + 1)))
    if checkpoint is not None:
        for step in (1, checkpoint):
            folder = run / "checkpoints" / str(step)
            folder.mkdir(parents=True, exist_ok=True)
            manifest = {"step": step, "progress": PROGRESS | progress, "files": {}}
            (folder / "manifest.json").write_text(json.dumps(manifest))
        (run / "checkpoints" / "9999").mkdir()  # an unfinished checkpoint does not count
    (run / "command.txt").write_text(
        command_line(run.parent, ["seqlab", "train", "my config.py", "--out", run.name]) + "\n"
    )
    return run


def only_run(folder: Path) -> listing.RunStatus:
    (status,) = listing.find_runs(folder)
    return status


@pytest.mark.parametrize(
    ("checkpoint", "logged", "progress", "expected"),
    [
        (10, 10, {}, ("finished", 10)),
        (6, 6, {"stopped": True}, ("finished", 6)),
        (6, 6, {"waited": 3}, ("finished", 6)),
        (6, 6, {"waited": 2}, ("interrupted", 6)),
        (6, 6, {"waited": 2, "stopped": True}, ("interrupted", 6)),
        (6, 6, {}, ("interrupted", 6)),
        (6, 8, {}, ("interrupted", 8)),
        (None, 3, {}, ("interrupted", 3)),
        (None, 0, {}, ("interrupted", 0)),
    ],
)
def test_states(tmp_path, checkpoint, logged, progress, expected):
    run = make(tmp_path / "run", checkpoint, logged, **progress)
    status = only_run(tmp_path)
    assert (status.state, status.step) == expected
    assert (status.steps, status.checkpoint, status.metric) == (10, checkpoint, "loss")
    assert (status.best, status.best_step) == ((3.25, 2) if checkpoint else (None, None))
    assert (status.model, status.task, status.problem) == ("transformer", "translation", None)
    resume = f"cd {tmp_path} && seqlab train 'my config.py' --out run"
    assert status.resume == (resume if status.state == "interrupted" else None)
    since = "from step 6: " if checkpoint else "from the beginning: "
    assert (f"    {since}{resume}" in listing.format_table([status], time.time())) == (status.state == "interrupted")
    assert listing.find_runs(run) == [status]


def test_what_was_not_trained_here_is_finished(tmp_path):
    run = make(tmp_path / "mean", 4)
    manifest = run / "checkpoints" / "4" / "manifest.json"
    manifest.write_text(json.dumps({"step": 4, "progress": {"averaged": [2, 4]}, "files": {}}))
    assert only_run(tmp_path).state == "finished"


def test_a_lock_that_another_process_holds(tmp_path):
    """A lock is detected but not changed, is free when its process has ended, and is not created if missing."""
    run = make(tmp_path / "run", 4)
    lock = run / ".lock"
    lock.write_text("as it was")
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        assert only_run(tmp_path).state == "running"
        assert only_run(tmp_path).resume is None
        holder.communicate()
    assert lock.read_text() == "as it was"
    with lock.open() as reader:
        listing.fcntl.flock(reader, listing.fcntl.LOCK_SH)  # another reader
        assert only_run(tmp_path).state == "interrupted"
    lock.unlink()
    assert only_run(tmp_path).state == "interrupted"
    assert not lock.exists()


def test_where_runs_are_looked_for(tmp_path):
    """Runs are found three levels down, but not inside a run or behind a link."""
    for name in ("b", "a/x/y", "a/x/v/too-deep", "b/checkpoints/inner", "c"):
        make(tmp_path / "runs" / name)
    make(tmp_path / "outside")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    names = [str(Path(status.run).relative_to(tmp_path / "runs")) for status in listing.find_runs(tmp_path / "runs")]
    assert names == ["a/x/y", "b", "c"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("experiment.json", None, "experiment.json: not valid JSON"),
        ("experiment.json", b"[]", "experiment.json: unexpected content"),
        ("experiment.json", b"\xff\xfe", "experiment.json: not valid JSON"),
        ("experiment.json", b"[" * 100_000, "experiment.json: not valid JSON"),
        ("experiment.json", b'{"steps": "ten"}', "experiment.json: damaged: steps is missing"),
        ("experiment.json", b'{"steps": 10, "validation": []}', "experiment.json: damaged: validation.metric is"),
        ("checkpoints/4/manifest.json", None, "manifest.json: not valid JSON"),
        ("checkpoints/4/manifest.json", b'{"step": 4}', "manifest.json: damaged: progress is missing"),
        (
            "checkpoints/4/manifest.json",
            b'{"step": 4, "progress": {"best": NaN, "best_step": 4}}',
            "best must be a number",
        ),
        (
            "checkpoints/4/manifest.json",
            b'{"step": 4, "progress": {"best": 1' + b"0" * 400 + b', "best_step": 4}}',
            "best must be a number",
        ),
        ("metrics.jsonl", b'{"step": 1}\n{"ste\n', "metrics.jsonl: damaged"),
        ("metrics.jsonl", b"7\n", "/metrics.jsonl: damaged: step is missing"),
        (
            "command.txt",
            b"cd / && seqlab train x; rm y",
            "command.txt: damaged: it must contain exactly one `seqlab train`",
        ),
        (
            "command.txt",
            b"cd / && seqlab train $(rm y)",
            "command.txt: damaged: it must contain exactly one `seqlab train`",
        ),
        ("command.txt", b"cd / && rm y", "command.txt: damaged: it must contain exactly one `seqlab train`"),
        ("command.txt", b"cd / ; seqlab train x", "command.txt: damaged"),
        ("command.txt", b"'", "command.txt: damaged: not a command"),
        ("command.txt", b"\xff", "command.txt: damaged: not a command"),
    ],
)
def test_a_damaged_run_is_one_line(tmp_path, capsys, file, content, message):
    """The other runs are still listed. Content None: the file is truncated to half its size."""
    make(tmp_path / "fine", 4, 4)
    path = make(tmp_path / "broken", 4, 4) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    assert call(tmp_path, "runs", ".") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:4:2]] == [["broken", "damaged"], ["fine", "interrupted"]]
    assert message in lines[2]
    assert len(lines) == 5


def test_a_line_cut_short_is_no_damage(tmp_path):
    run = make(tmp_path / "run", 2, 5)
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')
    assert (only_run(tmp_path).state, only_run(tmp_path).step) == ("interrupted", 5)


def test_a_long_log_is_read_from_its_end(tmp_path):
    make(tmp_path / "run", 2, 5_000)
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_size > 2 * listing.TAIL
    assert only_run(tmp_path).step == 5_000


def test_json(tmp_path, capsys):
    make(tmp_path / "run", 6, 6)
    os.utime(tmp_path / "run" / "metrics.jsonl", (2e9, 2e9))
    assert call(tmp_path, "runs", ".", "--json") == 0
    (fields,) = json.loads(capsys.readouterr().out)
    assert set(fields) == {*listing.RunStatus._fields}
    assert (fields["run"], fields["state"], fields["written"]) == ("run", "interrupted", "2033-05-18T03:33:20Z")
    assert call(tmp_path, "runs", "run/checkpoints", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_run_that_was_moved_is_gone_on_with_where_it_is(tmp_path):
    make(tmp_path / "run", 6).rename(tmp_path / "moved")
    status = only_run(tmp_path)
    assert status.resume == f"cd {tmp_path} && seqlab train 'my config.py' --out {tmp_path / 'moved'}"


def test_the_table_fits_where_it_can(tmp_path):
    for name in ("a", "a-longer-name"):
        make(tmp_path / name, 10, 10)
    statuses = [status._replace(run=Path(status.run).name) for status in listing.find_runs(tmp_path)]
    full_table = listing.format_table(statuses, time.time()).splitlines()
    assert len({line.index("finished") for line in full_table[1:]} | {full_table[0].index("STATE")}) == 1
    assert full_table[0].split() == ["RUN", "STATE", "STEP", "BEST", "WROTE", "MODEL", "TASK"]
    widest = max(map(len, full_table))
    for width in range(20, widest + 3):
        table = listing.format_table(statuses, time.time(), width).splitlines()
        assert all(line.startswith(cut) for line, cut in zip(full_table, table, strict=True))
        assert max(map(len, table)) <= max(width, len("a-longer-name  finished"))
    assert table == full_table


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(-5, "0 s"), (3, "3 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (86_400, "24 h"), (200_000, "2 days")],
)
def test_age(seconds, age):
    assert listing.age(float(seconds)) == f"{age} ago"


def test_names_move_no_cursor(tmp_path):
    make(tmp_path / "a\x1b[2Jb\u202e", 10)
    assert "\x1b" not in listing.format_table(listing.find_runs(tmp_path), time.time())
    assert r"a\x1b[2Jb\u202e" in listing.format_table(listing.find_runs(tmp_path), time.time())


def test_bad_input_is_one_line(tmp_path, capsys):
    assert call(tmp_path, "runs", "rnus") == 2
    assert capsys.readouterr().err == "seqlab: rnus is not a folder\n"
    assert call(tmp_path, "runs", ".") == 0
    assert capsys.readouterr().out == "no runs in .\n"


def test_nothing_heavy_is_imported():
    code = "import sys, seqlab.runs.listing; print({'jax', 'numpy', 'flax'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout == "set()\n"


MUTANTS = (
    (
        Mutant(
            "a held lock counts as free",
            "runs.listing",
            "            return True\n    return False",
            "            return False\n    return False",
            "test_a_lock_that_another_process_holds",
        ),
        (),
    ),
    (
        Mutant(
            "the rest of a command is not checked",
            "runs.command",
            "line != command_line(Path(folder), words) or ",
            "",
            "test_a_damaged_run_is_one_line",
        ),
        ("capsys", "command.txt", b"cd / && seqlab train x; rm y", "exactly one"),
    ),
    (
        Mutant(
            "links are followed",
            "runs.listing",
            "follow_symlinks=False",
            "follow_symlinks=True",
            "test_where_runs_are_looked_for",
        ),
        (),
    ),
    (
        Mutant(
            "a run that stopped early counts as interrupted",
            "runs.listing",
            "or stopped_early(progress, patience)",
            "",
            "test_states",
        ),
        (6, 6, {"stopped": True}, ("finished", 6)),
    ),
)


@pytest.mark.parametrize(("mutant", "arguments"), MUTANTS, ids=lambda x: getattr(x, "bug", "").replace(" ", "-"))
def test_mutant_is_caught(mutant, arguments, tmp_path, capsys):
    values = [capsys if value == "capsys" else value for value in arguments]
    with planted(mutant, "tests.runs.test_listing") as mutated, pytest.raises(AssertionError):
        getattr(mutated, mutant.law)(tmp_path, *values)
