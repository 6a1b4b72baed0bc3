"""Tests of the launcher of several processes, with placeholder programs that start immediately.

Every process of a test holds a lock on a file while it lives, so that leftover processes are detected.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest

from seqlab.distributed import launch
from seqlab.distributed.launch import seqlab_commands
from seqlab.system.errors import SeqlabError
from tests.command import call
from tests.mutants import Mutant

ROOT = Path(__file__).parents[2]
LAUNCHER = """
import importlib.util, json, signal, sys
spec = importlib.util.spec_from_file_location("launch", sys.argv[1])
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[4:] else signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
sys.exit(launch.launch(json.loads(sys.argv[2]), float(sys.argv[3])))
"""
# Functions for placeholder programs: `on(signal, code)`; `sleep()`, forever; `ready()`, for which a test waits, and
# `others(count)`, which waits until `count` programs are ready.
STAND_IN = """
import fcntl, os, signal, subprocess, sys, time
held = open("held", "w")
fcntl.flock(held, fcntl.LOCK_SH)
on = lambda number, code: signal.signal(number, lambda *_: os._exit(code))
sleep = lambda: time.sleep(600)
def ready(pid=os.getpid()):
    open(f"ready-{pid}", "w").close()
def others(count):
    while sum(name.startswith("ready-") for name in os.listdir(".")) < count:
        time.sleep(0.01)
"""
SOURCE = Path(launch.__file__)
PATIENCE = 30.0  # seconds that a test waits for events that should be immediate
LINGERS = 3.0  # seconds until a process killed by the kernel must be gone


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def launched(folder: Path, *programs: str, source: Path = SOURCE, grace: float = PATIENCE, nohup: bool = False):
    """Starts the launcher with these programs."""
    commands = json.dumps([[sys.executable, "-ISc", STAND_IN + program] for program in programs])
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(source), commands, str(grace), *(["nohup"] if nohup else [])],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def ended(folder: Path, process: subprocess.Popen[str]) -> Ended:
    """Returns how the launcher ended, and asserts that none of its processes is left."""
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    with (folder / "held").open("w") as held:
        try:
            until(lambda: free(held.fileno()), LINGERS)
        finally:
            for path in folder.glob("ready-*"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(path.name.partition("-")[2]), signal.SIGKILL)
    return Ended(process.returncode, out, err)


def run(folder: Path, *programs: str, **options) -> Ended:
    return ended(folder, launched(folder, *programs, **options))


def signalled(folder: Path, number: int, *programs: str, **options) -> Ended:
    """Sends a signal to the launcher once all its processes are ready."""
    process = launched(folder, *programs, **options)
    try:
        until(lambda: len(list(folder.glob("ready-*"))) == len(programs))
    finally:
        process.send_signal(number)
    return ended(folder, process)


def until(holds: Callable[[], bool], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def source() -> Path:
    return SOURCE


def test_all_is_well(tmp_path, source):
    say = "print('out', flush=True); print('err', file=sys.stderr)"
    result = run(tmp_path, say, say, say, source=source)
    assert result.code == 0
    assert result.out == "out\n"
    assert sorted(result.err.splitlines()) == ["[1] err", "[1] out", "[2] err", "[2] out", "err"]


def test_input_is_the_first_ones(tmp_path):
    read = "assert not sys.stdin.read()"
    assert run(tmp_path, read, read).code == 0


def test_one_fails(tmp_path, source):
    """The failure is reported once, below the output of the process, and its exit code is the launcher's."""
    bad = "others(2)\nfor i in range(30): print('no', i, file=sys.stderr)\nos._exit(3)"
    result = run(tmp_path, "ready(); sleep()", bad, "ready(); sleep()", source=source)
    assert result.code == 3
    said = "".join(f"[1] no {i}\n" for i in range(30))
    assert result.err.startswith(f"{said}seqlab launch: process 1 ended with exit code 3\n")
    assert result.err.count("no 29") == 1
    assert "stopping processes 0, 2" in result.err


def test_a_failure_is_noticed_without_its_signal():
    """Python handles a signal that arrives just before the launcher blocks only when it wakes up."""
    bad, good = (
        subprocess.Popen([sys.executable, "-ISc", code])
        for code in ("raise SystemExit(3)", "import time; time.sleep(99)")
    )
    threads = [threading.Thread(), threading.Thread()]
    for thread in threads:
        thread.start()
    assert launch.watch([bad, good], threads, set(), SimpleQueue(), PATIENCE) == 3
    assert good.returncode == -signal.SIGTERM


def test_the_others_die_in_silence(tmp_path, source):
    """The output of other processes after a failure does not hide which process failed."""
    shocked = "signal.signal(15, lambda *_: (print('a stack trace', flush=True), os._exit(1))); ready(); sleep()"
    result = run(tmp_path, "others(1); os._exit(3)", shocked, source=source)
    assert result.code == 3
    assert "process 0 ended with exit code 3\n" in result.err
    assert "stack trace" not in result.err


def test_the_first_fails(tmp_path):
    result = run(tmp_path, "print('bad luck', file=sys.stderr); sys.exit(4)", "sleep()")
    assert result.code == 4
    assert "bad luck\nseqlab launch: process 0 ended with exit code 4\n" in result.err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_one_is_killed(tmp_path, number):
    result = run(tmp_path, "sleep()", f"os.kill(os.getpid(), {int(number)})")
    assert result.code == 128 + number
    assert f"process 1 was killed by signal {int(number)}, {signal.strsignal(number)}" in result.err
    assert ("out of memory" in result.err) == (number == signal.SIGKILL)


def test_others_may_save(tmp_path, source):
    """The other processes receive SIGTERM and have time to save."""
    saves = (
        "signal.signal(15, lambda *_: (time.sleep(0.3), print('saved', flush=True), os._exit(75))); ready(); sleep()"
    )
    result = run(tmp_path, saves, "others(1); sys.exit(5)", source=source)
    assert result.code == 5
    assert result.out == "saved\n"


def test_what_does_not_stop_is_killed(tmp_path, source):
    stubborn = "signal.signal(15, signal.SIG_IGN); ready(); sleep()"
    result = run(tmp_path, stubborn, "others(1); sys.exit(6)", grace=0.2, source=source)
    assert result.code == 6
    assert "process 0 still running after" in result.err


@pytest.mark.parametrize("codes", [(75, 75), (0, 75), (75, 0, 0)])
def test_saved(tmp_path, codes, source):
    """The exit code is 75, and no failure is reported."""
    programs = [f"time.sleep({i / 10}); sys.exit({code})" for i, code in enumerate(codes)]
    assert run(tmp_path, *programs, source=source) == Ended(75, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(tmp_path, number, source):
    program = f"on({int(signal.SIGTERM if number == signal.SIGHUP else number)}, 75); ready(); sleep()"
    result = signalled(tmp_path, number, program, program, source=source)
    assert result.code == 75
    assert result.err == f"seqlab launch: {number.name}: forwarded to processes 0, 1\n"


@pytest.mark.parametrize("stop", ["", "on(15, 143)"])
def test_stopped_before_there_is_anything_to_save(tmp_path, stop):
    program = f"{stop}; ready(); sleep()".lstrip("; ")
    result = signalled(tmp_path, signal.SIGTERM, program, program)
    assert result.code == 143
    assert "ended with" not in result.err
    assert "killed by" not in result.err


def test_a_failure_while_stopping_is_told(tmp_path):
    result = signalled(tmp_path, signal.SIGTERM, "on(15, 75); ready(); sleep()", "on(15, 9); ready(); sleep()")
    assert result.code == 9
    assert "process 1 ended with exit code 9" in result.err


def test_nothing_is_left_when_the_launcher_is_killed(tmp_path, source):
    program = "os.close(1); signal.signal(15, signal.SIG_IGN); ready(); sleep()"
    assert signalled(tmp_path, signal.SIGKILL, program, program, source=source).code == -signal.SIGKILL


def test_what_a_process_leaves_behind_is_killed(tmp_path, source):
    leaves = (
        "no = subprocess.DEVNULL\n"
        "left = subprocess.Popen(['sleep', '600'], stdin=no, stdout=no, stderr=no, pass_fds=[held.fileno()])\n"
        "ready(left.pid); os._exit(0)"
    )
    assert run(tmp_path, leaves, leaves, source=source).code == 0


def test_ignored_signals_stay_ignored(tmp_path):
    """As under nohup: the processes continue on SIGHUP, and stop on SIGTERM."""
    program = "on(1, 1); on(15, 75); ready(); sleep()"
    process = launched(tmp_path, program, program, nohup=True)
    until(lambda: len(list(tmp_path.glob("ready-*"))) == 2)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert ended(tmp_path, process) == Ended(75, "", "seqlab launch: SIGTERM: forwarded to processes 0, 1\n")


def test_what_cannot_be_started(tmp_path):
    """The error is reported, and processes that were started before it are ended; they would hold the pipes open."""
    code = "import sys; from seqlab.distributed.launch import launch; launch([['sleep', '600'], ['no-such-program']])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert "FileNotFoundError" in result.stderr


MUTANTS = (
    (
        Mutant(
            "lines without process numbers",
            "distributed.launch",
            "if number else",
            "if number < 0 else",
            "test_all_is_well",
        ),
        {},
    ),
    (
        Mutant(
            "exit code 75 counts as a failure",
            "distributed.launch",
            "not in (0, EXIT_STOPPED)",
            "not in (0,)",
            "test_saved",
        ),
        {"codes": (75, 75)},
    ),
    (
        Mutant("exit code 75 counts as success", "distributed.launch", "max(codes, default=0)", "0", "test_saved"),
        {"codes": (0, 75)},
    ),
    (
        Mutant(
            "other processes are not silenced",
            "distributed.launch",
            "silent.update(running)",
            "pass",
            "test_the_others_die_in_silence",
        ),
        {},
    ),
    (
        Mutant(
            "the exit code is lost", "distributed.launch", "(code if code > 0 else 128 - code)", "1", "test_one_fails"
        ),
        {},
    ),
    (
        Mutant(
            "processes have no time to save",
            "distributed.launch",
            "process.terminate()",
            "process.kill()",
            "test_others_may_save",
        ),
        {},
    ),
    (
        Mutant(
            "processes are killed instead of signaled",
            "distributed.launch",
            "process.send_signal(requested_signal)",
            "process.kill()",
            "test_signals_are_passed_on",
        ),
        {"number": signal.SIGTERM},
    ),
    (
        Mutant(
            "processes outlive the launcher",
            "distributed.launch",
            "LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)",
            "pass",
            "test_nothing_is_left_when_the_launcher_is_killed",
        ),
        {},
    ),
    (
        Mutant(
            "grandchildren survive",
            "distributed.launch",
            "kill_group(running.pop(i))",
            "running.pop(i)",
            "test_what_a_process_leaves_behind_is_killed",
        ),
        {},
    ),
)


@pytest.mark.parametrize(("mutant", "arguments"), MUTANTS, ids=[mutant.bug for mutant, _ in MUTANTS])
def test_a_planted_bug_is_caught(tmp_path, mutant, arguments):
    text = SOURCE.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    source = tmp_path / "launch.py"
    source.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    with pytest.raises(AssertionError):
        globals()[mutant.law](tmp_path, **arguments, source=source)


def test_commands(monkeypatch):
    """All processes have the same command and coordinator, and different numbers."""
    commands = seqlab_commands(["train", "config.py", "--out", "run"], 3)
    assert [command[:3] for command in commands] == [[sys.executable, "-m", "seqlab.cli"]] * 3
    given = ["train", "config.py", "--out", "run", "--coordinator"]
    assert [command[3:8] for command in commands] == [given] * 3
    assert len({command[8] for command in commands}) == 1
    host, port = commands[0][8].split(":")
    assert (host, int(port) > 1023) == ("localhost", True)
    assert [command[9:] for command in commands] == [["--processes", "3", "--process", str(i)] for i in range(3)]


@pytest.mark.parametrize(("visible", "own"), [(None, ("0,1", "2,3")), ("4,7,1,0,9", ("4,7", "1,0"))])
def test_gpus(monkeypatch, visible, own):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    commands = seqlab_commands(["evaluate", "run"], 2, 2)
    expected = [["env", f"CUDA_VISIBLE_DEVICES={gpus}", "JAX_PLATFORMS=cuda"] for gpus in own]
    assert [command[:3] for command in commands] == expected


def test_too_few_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(SeqlabError, match="2 processes need 2 GPUs each, but CUDA_VISIBLE_DEVICES lists 3"):
        seqlab_commands(["evaluate", "run"], 2, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--processes", "0", "--", "train", "config.py"], "--processes must be at least 1, not 0"),
        (["--processes", "2", "--gpus-each", "-1", "--", "train", "c.py"], "--gpus-each must be at least 0, not -1"),
        (["--processes", "2", "--", "list"], "COMMAND must be one of train, decode, evaluate"),
        (["--processes", "2", "--"], "COMMAND must be one of train, decode, evaluate"),
        (["--processes", "2"], "COMMAND must be one of train, decode, evaluate"),
        (["--processes", "2", "train", "--", "train"], "the command must follow --"),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, said):
    assert call(tmp_path, "launch", *arguments) == 2
    assert said in capsys.readouterr().err
