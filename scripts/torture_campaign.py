"""Campaigns of `scripts/torture.py`: runs of a model are killed, resumed, and compared with an uninterrupted run."""

import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torture_victim
from torture_evidence import differences, evidence
from torture_victim import PHASES, lengths_of, make_marks, phases_under_way, read_marks

from seqlab.runs import manifest

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ("train", "config.py", "--out", "run", "--data-dir", "data")
MAX_TRIES = 4  # maximum number of runs to hit a phase, since a run may end before it is hit
MAX_SECONDS = 900.0  # a run that takes longer is considered to hang


class Topology(NamedTuple):
    """The number of processes, the number of devices of each, and further options of the command."""

    processes: int
    devices: int
    options: tuple[str, ...] = ()


TOPOLOGIES = {
    "jit": Topology(1, 1),
    "fsdp and tensor": Topology(1, 8, ("--parallel.fsdp", "2", "--parallel.tensor", "2")),
    "pmap": Topology(1, 8, ("--parallel.name", "pmap")),
    "2 processes": Topology(2, 4),
}


class Lost(Exception):
    """Reports that a run did not end like the uninterrupted run."""


class Kill(NamedTuple):
    """A kill that was aimed at the phase `target`. The phases `hit` were active when the process died."""

    model: str
    way: str
    target: str
    hit: list[str]


class CampaignResult(NamedTuple):
    """The kills that a model survived and lost, the reasons for the losses, and the targets that were never hit."""

    survived: list[Kill]
    lost: list[Kill]
    reasons: list[str]
    missed: list[str]


class WholeRun(NamedTuple):
    """An uninterrupted run: its last step, its evidence, and the number and durations (in ns) of each phase."""

    steps: int
    evidence: dict[str, str]
    times: dict[str, int]
    lengths: dict[str, list[int]]


# Processes


def environment(topology: Topology, folder: Path) -> dict[str, str]:
    """Returns the environment variables of a run.

    A single process caches its compiled programs in `folder`. With several processes only the first would cache them.
    It would then be faster and wait for the others, and Gloo times out after 30 s.
    """
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    devices = f"--xla_force_host_platform_device_count={topology.devices}"
    return {
        **{name: value for name, value in os.environ.items() if name not in cache},
        **(cache if topology.processes == 1 else {}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")]),
        "XLA_FLAGS": f"{devices} --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }


@contextlib.contextmanager
def started(
    home: Path, topology: Topology, marks: Path, plant: str = "", options: Sequence[str] = ()
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Starts the processes of a run, each in its own group. At the end of the block, kills those that still run.

    The record of process i is the file `marks` with the suffix .i.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    with (home / "log.txt").open("ab") as log:
        try:
            for i in range(topology.processes):
                own_marks = marks.with_suffix(f".{i}")
                make_marks(own_marks)
                command = [sys.executable, torture_victim.__file__, str(own_marks), plant]
                command += [*TRAIN, *topology.options, *options]
                if topology.processes > 1:
                    command += ["--coordinator", f"localhost:{port}"]
                    command += ["--processes", str(topology.processes), "--process", str(i)]
                processes.append(
                    subprocess.Popen(
                        command,
                        cwd=home,
                        env=environment(topology, marks.parent.parent),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
            yield processes
        finally:
            kill(processes)


def kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kills the process groups that still run, and waits until all processes have ended."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()


def wait_for_phase(
    processes: Sequence[subprocess.Popen[bytes]],
    marks: np.ndarray,
    phase: str,
    nth: int,
    lengths: Sequence[int],
    rng: random.Random,
) -> bool:
    """Waits for a random instant in the nth occurrence of a phase. Returns False if a process ends first.

    The instant is sampled within a duration from `lengths`, in nanoseconds. If the phase ends before it, an earlier
    instant in a later occurrence is tried. Raises `Lost` after a time limit.
    """
    row, deadline, share = marks[PHASES.index(phase)], time.monotonic() + MAX_SECONDS, 1.0
    while all(process.poll() is None for process in processes):
        if row[0] >= nth and row[0] > row[1]:
            time.sleep(share * rng.random() ** 2 * rng.choice(lengths) / 1e9)
            if row[0] > row[1]:
                return True
            nth, share = int(row[0]) + 1, share / 2
        if time.monotonic() > deadline:
            raise Lost(f"still running after {MAX_SECONDS:.0f} s")
        time.sleep(0.0003)
    return False


def wait_for_end(home: Path, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Waits until all processes have ended. Raises `Lost` if an exit code is not 0, and after a time limit."""
    deadline = time.monotonic() + MAX_SECONDS
    try:
        codes = {process.wait(max(deadline - time.monotonic(), 0.0)) for process in processes}
    except subprocess.TimeoutExpired:
        raise Lost(f"still running after {MAX_SECONDS:.0f} s") from None
    if codes != {0}:
        tail = (home / "log.txt").read_text(errors="replace").splitlines()[-5:]
        raise Lost(f"exit codes {sorted(codes)}, expected 0: {' | '.join(tail)}")


# Runs


def make_home(home: Path, name: str, documents: Path) -> None:
    """Creates the folder of a run, with a config for a model."""
    home.mkdir(parents=True)
    code = (
        f"from torture_experiments import experiment_of\n\nexperiment = experiment_of({name!r}, {str(documents)!r})\n"
    )
    (home / "config.py").write_text(code)


def run_whole(home: Path, topology: Topology) -> WholeRun:
    """Trains without interruption and returns the result."""
    marks_path = home.parent / "whole.marks"
    with started(home, topology, marks_path) as processes:
        wait_for_end(home, processes)
    marks = read_marks(marks_path.with_suffix(".0"))
    times = {phase: int(row[0]) for phase, row in zip(PHASES, marks, strict=True)}
    lengths = {phase: lengths_of(marks, phase) for phase in PHASES}
    return WholeRun(manifest.checkpoint_steps(home / "run")[-1], evidence(home), times, lengths)


@dataclasses.dataclass
class Campaign:
    """Runs of one model that are killed, some of them several times, and resumed until they end."""

    model: str
    way: str
    """The name of a topology."""
    folder: Path
    """The folder of all campaigns, with the documents."""
    rng: random.Random
    bug: str
    """The name of a planted bug, or an empty string."""
    say: Callable[[str], None]
    result: CampaignResult = dataclasses.field(default_factory=lambda: CampaignResult([], [], [], []))
    pending: list[Kill] = dataclasses.field(default_factory=list)
    """The kills of the run that has not ended yet."""
    numbers: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))
    """The numbers for the runs that are killed."""

    @property
    def topology(self) -> Topology:
        """The topology of all runs."""
        return TOPOLOGIES[self.way]

    @property
    def place(self) -> Path:
        """The folder of all runs."""
        return self.folder / f"{self.model}, {self.way}"

    @property
    def marks(self) -> Path:
        """The path of the phase record of a run that is killed."""
        return self.place / "killed.marks"

    def run(self, targets: Sequence[str]) -> CampaignResult:
        """Kills runs once in each of the phases `targets`, and then lets them end."""
        make_home(self.place / "whole", self.model, self.folder / "documents")
        whole = run_whole(self.place / "whole", self.topology)
        home = self.new_home()
        for target in targets:
            home, is_hit = self.kill_in_phase(home, target, whole)
            if not is_hit:
                self.result.missed.append(target)
                self.say(f"{self.model}, {self.way}: {target} was not hit")
        with started(home, self.topology, self.marks, self.bug) as processes:
            self.compare_end(home, processes, whole)
        if not self.result.reasons:
            shutil.rmtree(self.place)
        return self.result

    def new_home(self) -> Path:
        """Creates the folder of a new run."""
        home = self.place / f"killed-{next(self.numbers)}"
        make_home(home, self.model, self.folder / "documents")
        return home

    def kill_in_phase(self, home: Path, target: str, whole: WholeRun) -> tuple[Path, bool]:
        """Kills the run in `home` in a phase. If the run ends first, compares it, and tries a new run.

        Returns the home of the last run, and whether the phase was hit.
        """
        for _ in range(MAX_TRIES):
            steps = manifest.checkpoint_steps(home / "run")
            share_left = 1 - (steps[-1] if steps else 0) / whole.steps
            nth = self.rng.randint(1, max(round(whole.times[target] * share_left) - 1, 1))
            with started(home, self.topology, self.marks, self.bug) as processes:
                marks = read_marks(self.marks.with_suffix(".0"))
                lengths = whole.lengths[target]
                if wait_for_phase(processes, marks, target, nth, lengths, self.rng):
                    kill(processes)
                    if processes[0].returncode == -signal.SIGKILL:
                        hit = phases_under_way(marks)
                        self.pending.append(Kill(self.model, self.way, target, hit))
                        self.say(f"{self.model}, {self.way}: killed in {' and '.join(hit) or 'nothing'}, {steps}")
                        if target in hit:
                            return home, True
                        continue
                self.compare_end(home, processes, whole)
                whole.lengths[target] = lengths_of(marks, target) or lengths  # the phase was shorter this time
                home = self.new_home()
        return home, False

    def compare_end(self, home: Path, processes: Sequence[subprocess.Popen[bytes]], whole: WholeRun) -> None:
        """Waits for the end of a run and compares it with the uninterrupted run. Deletes it unless it is lost."""
        try:
            wait_for_end(home, processes)
            changed = differences(whole.evidence, evidence(home))
            if changed:
                raise Lost(", ".join(changed))
        except Lost as lost:
            self.say(f"LOST {home} after {len(self.pending)} kills: {lost}")
            self.result.lost.extend(self.pending)
            self.result.reasons.append(f"{home}: {lost}")
        else:
            self.say(f"{self.model}, {self.way}: the same end after {len(self.pending)} kills")
            self.result.survived.extend(self.pending)
            shutil.rmtree(home)
        self.pending.clear()
