"""Injects faults into training, one after the other, and reports whether training handles each fault as documented.

    python scripts/faults.py [--only KIND ...] [--folder DIR] [--json FILE]

The faults are signals in each phase, damaged checkpoints, a full disk (a small tmpfs, as root on Linux), the death of
one of several processes, and a batch that is not finite. The end of a resumed run is compared with an uninterrupted
run, as in `scripts/torture.py`. The exit code is 1 if a fault is not handled as documented.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from torture_campaign import (
    TOPOLOGIES,
    TRAIN,
    Lost,
    WholeRun,
    environment,
    kill,
    make_home,
    run_whole,
    started,
    wait_for_end,
    wait_for_phase,
)
from torture_evidence import differences, evidence
from torture_experiments import write_documents
from torture_victim import PHASES, read_marks

from seqlab.runs import manifest

EXPERIMENT = "run/experiment.json"  # stores options of the first command that the uninterrupted run does not have
MODELS = {"jit": "bahdanau", "2 processes": "recurrent_lm"}  # by topology
GRACE = 30.0  # the usual time between SIGTERM and SIGKILL of a scheduler, in seconds
HEARTBEAT = 10  # seconds


class Fault(NamedTuple):
    """A fault, what was observed, the seconds until the end, and whether this is as documented."""

    fault: str
    seen: str
    seconds: float | None
    holds: bool


class Workspace(NamedTuple):
    """The folder of the runs with faults, and the uninterrupted runs by topology."""

    folder: Path
    whole: dict[str, WholeRun]

    def make_home(self, name: str, topology: str = "jit") -> Path:
        """Creates and returns the folder of a run."""
        home = self.folder / "faults" / name
        make_home(home, MODELS[topology], self.folder / "documents")
        return home

    @property
    def marks(self) -> Path:
        """The path of the record of the phases of a run."""
        return self.folder / "faults" / "marks"

    def resume(self, home: Path, topology: str = "jit") -> str:
        """Runs the same command until it ends, and returns how its end compares with the uninterrupted run."""
        try:
            with started(home, TOPOLOGIES[topology], self.marks) as processes:
                wait_for_end(home, processes)
            return self.compare(home, topology)
        except Lost as lost:
            return f"LOST: {lost}"

    def compare(self, home: Path, topology: str = "jit") -> str:
        """Returns how the end of a run compares with the uninterrupted run."""
        changed = set(differences(self.whole[topology].evidence, evidence(home))) - {EXPERIMENT}
        return f"LOST: {', '.join(sorted(changed))}" if changed else "same end"


def log_of(home: Path) -> str:
    """Returns the output of the processes of a run."""
    return (home / "log.txt").read_text(errors="replace")


def wait_for_exit(processes: Sequence[subprocess.Popen[bytes]], begin: float) -> tuple[int | None, float]:
    """Returns the exit code of the first process (None if it does not end), and the seconds since `begin`."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        processes[0].wait(120)
    return processes[0].poll(), time.monotonic() - begin


def signals(workspace: Workspace) -> Iterator[Fault]:
    """Stops one run by both signals in each phase."""
    home, rng, topology = workspace.make_home("signals"), random.Random(0), TOPOLOGIES["jit"]
    whole = workspace.whole["jit"]
    for phase in PHASES:
        for number in (signal.SIGTERM, signal.SIGINT):
            with started(home, topology, workspace.marks) as processes:
                marks = read_marks(workspace.marks.with_suffix(".0"))
                if not wait_for_phase(processes, marks, phase, 1, [min(whole.lengths[phase]) // 4], rng):
                    yield Fault(f"{number.name} in {phase}", "the run ended first", None, False)
                    continue
                processes[0].send_signal(number)
                code, seconds = wait_for_exit(processes, time.monotonic())
            saved = manifest.checkpoint_steps(home / "run")
            seen = f"exit code {code}, last saved step: {saved[-1] if saved else 'none yet'}"
            yield Fault(f"{number.name} in {phase}", seen, seconds, code == 75 and seconds < GRACE)
    seen = workspace.resume(home)
    yield Fault("resumed after all of these", seen, None, seen == "same end")


def cut(path: Path) -> None:
    """Cuts off the second half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damages(workspace: Workspace) -> Iterator[Fault]:
    """Damages the last checkpoint of a finished run, and resumes the run."""

    def largest_file(folder: Path) -> Path:
        return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)

    kinds: dict[str, tuple[Callable[[Path], None], bool]] = {
        "state cut short": (lambda folder: cut(largest_file(folder)), True),
        "a bit of the state flipped": (lambda folder: flip(largest_file(folder)), True),
        "a file of the state missing": (lambda folder: largest_file(folder).unlink(), True),
        "manifest cut short": (lambda folder: cut(folder / manifest.MANIFEST), True),
        "a bit of the manifest flipped": (lambda folder: flip(folder / manifest.MANIFEST), True),
        "half-written: no manifest yet": (lambda folder: (folder / manifest.MANIFEST).unlink(), False),
    }
    for i, (kind, (damage, is_reported)) in enumerate(kinds.items()):
        home = workspace.folder / "faults" / f"damaged-{i}"
        shutil.copytree(workspace.folder / "faults" / "whole, jit", home)
        steps = manifest.checkpoint_steps(home / "run")
        (home / "log.txt").unlink()
        damage(home / "run" / "checkpoints" / str(steps[-1]))
        seen = workspace.resume(home)
        passed_over = f"CHECKPOINT {steps[-1]} IS SKIPPED" in log_of(home)
        resumed = f"resuming from step {steps[-2]}" in log_of(home)
        words = ["reported", "skipped"] if passed_over else ["ignored"]
        holds = seen == "same end" and passed_over == is_reported and resumed
        yield Fault(kind, f"{', '.join(words)}; from step {steps[-2]}: {seen}", None, holds)
    home = workspace.folder / "faults" / "all-damaged"
    shutil.copytree(workspace.folder / "faults" / "whole, jit", home)
    for step in manifest.checkpoint_steps(home / "run"):
        flip(largest_file(home / "run" / "checkpoints" / str(step)))
    with started(home, TOPOLOGIES["jit"], workspace.marks) as processes:
        code, _ = wait_for_exit(processes, 0.0)
    has_advice = "all checkpoints are damaged" in log_of(home)
    yield Fault(
        "all checkpoints damaged",
        f"exit code {code}{', with advice' * has_advice}",
        None,
        code == 2 and has_advice,
    )


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mounts a disk of 16 MiB at `folder`. Yields whether that succeeded."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Writes to a file until the disk is full."""
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(4096)):
            pass


def full_disks(workspace: Workspace) -> Iterator[Fault]:
    """Fills the disk from the second step on, until the loss of a checkpoint is reported or until the end."""
    rng = random.Random(0)
    for room_again in (True, False):
        name = f"full disk, freed {'once it is reported' if room_again else 'after the end'}"
        home = workspace.make_home("room" if room_again else "no-room")
        with small_disk(home / "run") as mounted:
            if not mounted:
                yield Fault(name, "not tested: cannot mount a small disk on this machine", None, True)
                continue
            filler = home / "run" / "filler"
            with started(home, TOPOLOGIES["jit"], workspace.marks) as processes:
                wait_for_phase(processes, read_marks(workspace.marks.with_suffix(".0")), "step", 2, [1], rng)
                fill(filler)
                while room_again and "COULD NOT BE WRITTEN" not in log_of(home) and processes[0].poll() is None:
                    time.sleep(0.01)
                if room_again:
                    filler.unlink()
                code, _ = wait_for_exit(processes, 0.0)
            reports = log_of(home).count("COULD NOT BE WRITTEN")
            filler.unlink(missing_ok=True)
            after = workspace.compare(home) if room_again else workspace.resume(home)
            seen = f"{reports} reports, exit code {code}; {'' if room_again else 'then the same command: '}{after}"
            yield Fault(name, seen, None, code == (0 if room_again else 2) and reports > 0 and after == "same end")


def peers(workspace: Workspace) -> Iterator[Fault]:
    """Kills one of two processes, with and without `seqlab launch`."""
    topology = TOPOLOGIES["2 processes"]
    for victim in (0, 1):
        home = workspace.make_home(f"launched-{victim}", "2 processes")
        command = [sys.executable, "-m", "seqlab.cli", "launch", "--processes", "2", "--", *TRAIN]
        with (home / "log.txt").open("wb") as log:
            env = environment(topology, workspace.folder)
            launcher = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True)
            try:
                while launcher.poll() is None and not manifest.checkpoint_steps(home / "run"):
                    time.sleep(0.01)
                children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
                os.kill(sorted(map(int, children))[victim], signal.SIGKILL)
                code, seconds = wait_for_exit([launcher], time.monotonic())
            finally:
                kill([launcher])
        named = f"process {victim} was killed by signal 9" in log_of(home)
        after = workspace.resume(home, "2 processes")
        seen = f"exit code {code}{', named' * named}; then the same command: {after}"
        holds = code == 137 and named and after == "same end"
        yield Fault(f"process {victim} of 2 killed, under seqlab launch", seen, seconds, holds)
    for victim in (0, 1):
        home = workspace.make_home(f"peer-{victim}", "2 processes")
        options = ("--parallel.heartbeat", str(HEARTBEAT))
        with started(home, topology, workspace.marks, options=options) as processes:
            wait_for_phase(processes, read_marks(workspace.marks.with_suffix(".0")), "step", 8, [1], random.Random(0))
            kill(processes[victim : victim + 1])
            code, seconds = wait_for_exit([processes[1 - victim]], time.monotonic())
        after = workspace.resume(home, "2 processes")
        ending = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        seen = f"the other: {ending}; then the same command: {after}"
        holds = code not in (0, 75, None) and seconds < 2 * HEARTBEAT + 10 and after == "same end"
        yield Fault(f"process {victim} of 2 killed, heartbeat {HEARTBEAT} s", seen, seconds, holds)


def not_finite(workspace: Workspace) -> Iterator[Fault]:
    """Trains on a batch whose loss is NaN, under each policy."""
    kinds = {"stop": (2, "is not finite"), "skip": (0, "ITS UPDATE IS SKIPPED"), "rollback": (0, "ROLLED BACK")}
    for policy, (expected, words) in kinds.items():
        home = workspace.make_home(f"not-finite-{policy}")
        with started(home, TOPOLOGIES["jit"], workspace.marks, "nan", ("--nonfinite", policy)) as processes:
            code, _ = wait_for_exit(processes, 0.0)
        reports = log_of(home).count(words)
        named = any(name in log_of(home) for name in ("epoch 0, batch 7", "--batch 0/7"))
        seen = f"{reports} reports{', naming the batch' * named}; exit code {code}"
        yield Fault(f"a batch that is not finite, {policy}", seen, None, code == expected and reports == 1 and named)


KINDS: dict[str, Callable[[Workspace], Iterator[Fault]]] = {
    "signals": signals,
    "damages": damages,
    "disks": full_disks,
    "peers": peers,
    "nan": not_finite,
}


def table(faults: Sequence[Fault]) -> Iterator[str]:
    """Yields the faults as lines of a Markdown table."""
    yield "| fault | observed | seconds until the end | as documented |"
    yield "|---|---|---|---|"
    for fault in faults:
        seconds = "" if fault.seconds is None else f"{fault.seconds:.1f}"
        yield f"| {fault.fault} | {fault.seen} | {seconds} | {'yes' if fault.holds else 'NO'} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Injects the faults. Returns the exit code: 1 if a fault is not handled as documented."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--folder", type=Path, help="folder of the runs; by default a new one, deleted on success")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    write_documents(folder / "documents")
    workspace = Workspace(folder, {})
    for topology in ("jit", "2 processes") if "peers" in options.only else ("jit",):
        home = workspace.make_home(f"whole, {topology}", topology)
        workspace.whole[topology] = run_whole(home, TOPOLOGIES[topology])
    faults = []
    for kind in options.only:
        for fault in KINDS[kind](workspace):
            print(fault, flush=True)
            faults.append(fault)
    print("\n".join(table(faults)))
    if options.json:
        options.json.write_text(json.dumps([fault._asdict() for fault in faults], indent=1))
    holds = all(fault.holds for fault in faults)
    if holds and options.folder is None:
        shutil.rmtree(folder)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
