"""Faults put into training, one after the other: what came of each, and whether that is as promised.

    python scripts/faults.py [--only KIND ...] [--folder DIR] [--json FILE]

Signals in each phase, damaged checkpoints, a full disk (a small tmpfs: as root, on Linux), a process killed among
several, a batch that is not finite. A run that goes on is compared, at its end, with one that nothing befell, as
`scripts/torture.py` does. The exit code is 1 where something is not as promised.
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
from torture import (
    PHASES,
    TRAIN,
    WAYS,
    Lost,
    Whole,
    aim,
    begun,
    differences,
    environment,
    evidence,
    kill,
    make_home,
    read_marks,
    run_whole,
    wait_for_end,
    write_documents,
)

from seqlab.runs import manifest

EXPERIMENT = "run/experiment.json"  # has options of the first command that the whole run does not have
MODELS = {"jit": "bahdanau", "2 processes": "recurrent_lm"}  # by way
GRACE = 30.0  # seconds that a scheduler usually leaves between SIGTERM and SIGKILL
HEARTBEAT = 10  # seconds


class Fault(NamedTuple):
    """What was done, what was seen, the seconds that it took to end, and whether all was as promised."""

    fault: str
    seen: str
    seconds: float | None
    holds: bool


class Place(NamedTuple):
    """Where faults are tried, and the runs that nothing befell, by way."""

    folder: Path
    whole: dict[str, Whole]

    def home(self, name: str, way: str = "jit") -> Path:
        home = self.folder / "faults" / name
        make_home(home, MODELS[way], self.folder / "documents")
        return home

    @property
    def marks(self) -> Path:
        return self.folder / "faults" / "marks"

    def end(self, home: Path, way: str = "jit") -> str:
        """Lets the same command run to its end, and tells how it compares."""
        try:
            with begun(home, WAYS[way], self.marks) as processes:
                wait_for_end(home, processes)
            return self.compared(home, way)
        except Lost as lost:
            return f"LOST: {lost}"

    def compared(self, home: Path, way: str = "jit") -> str:
        changed = set(differences(self.whole[way].evidence, evidence(home))) - {EXPERIMENT}
        return f"LOST: {', '.join(sorted(changed))}" if changed else "same end"


def log_of(home: Path) -> str:
    return (home / "log.txt").read_text(errors="replace")


def ended(processes: Sequence[subprocess.Popen[bytes]], begin: float) -> tuple[int | None, float]:
    """The exit code of the first process, None if it must be killed, and the seconds since `begin`."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        processes[0].wait(120)
    return processes[0].poll(), time.monotonic() - begin


def signals(place: Place) -> Iterator[Fault]:
    """One run, stopped by both signals in each phase."""
    home, rng, way = place.home("signals"), random.Random(0), WAYS["jit"]
    whole = place.whole["jit"]
    for phase in PHASES:
        for number in (signal.SIGTERM, signal.SIGINT):
            with begun(home, way, place.marks) as processes:
                marks = read_marks(place.marks.with_suffix(".0"))
                if not aim(processes, marks, phase, 1, [min(whole.lengths[phase]) // 4], rng):
                    yield Fault(f"{number.name} in {phase}", "the run ended first", None, False)
                    continue
                processes[0].send_signal(number)
                code, seconds = ended(processes, time.monotonic())
            saved = manifest.checkpoint_steps(home / "run")
            seen = f"exit code {code}, saved: step {saved[-1] if saved else 'none yet'}"
            yield Fault(f"{number.name} in {phase}", seen, seconds, code == 75 and seconds < GRACE)
    seen = place.end(home)
    yield Fault("gone on with after all of these", seen, None, seen == "same end")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damages(place: Place) -> Iterator[Fault]:
    """The newest checkpoint of a finished run is damaged, and the run gone on with."""

    def state_of(folder: Path) -> Path:
        return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)

    kinds: dict[str, tuple[Callable[[Path], None], bool]] = {
        "state cut short": (lambda folder: cut(state_of(folder)), True),
        "a bit of the state flipped": (lambda folder: flip(state_of(folder)), True),
        "a file of the state missing": (lambda folder: state_of(folder).unlink(), True),
        "manifest cut short": (lambda folder: cut(folder / manifest.MANIFEST), True),
        "a bit of the manifest flipped": (lambda folder: flip(folder / manifest.MANIFEST), True),
        "half-written: no manifest yet": (lambda folder: (folder / manifest.MANIFEST).unlink(), False),
    }
    for i, (kind, (damage, told)) in enumerate(kinds.items()):
        home = place.folder / "faults" / f"damaged-{i}"
        shutil.copytree(place.folder / "faults" / "whole, jit", home)
        steps = manifest.checkpoint_steps(home / "run")
        (home / "log.txt").unlink()
        damage(home / "run" / "checkpoints" / str(steps[-1]))
        seen = place.end(home)
        passed_over = f"CHECKPOINT {steps[-1]} IS PASSED OVER" in log_of(home)
        resumed = f"resuming from step {steps[-2]}" in log_of(home)
        words = ["told", "passed over"] if passed_over else ["not there for it"]
        holds = seen == "same end" and passed_over == told and resumed
        yield Fault(kind, f"{', '.join(words)}; from step {steps[-2]}: {seen}", None, holds)
    home = place.folder / "faults" / "all-damaged"
    shutil.copytree(place.folder / "faults" / "whole, jit", home)
    for step in manifest.checkpoint_steps(home / "run"):
        flip(state_of(home / "run" / "checkpoints" / str(step)))
    with begun(home, WAYS["jit"], place.marks) as processes:
        code, _ = ended(processes, 0.0)
    said = "no checkpoint is whole" in log_of(home)
    yield Fault("all checkpoints damaged", f"exit code {code}{', says what to do' * said}", None, code == 2 and said)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 16 MiB at `folder`; False: there can be none here."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(4096)):
            pass


def full_disks(place: Place) -> Iterator[Fault]:
    """The disk is full from the second step on: until the loss of a checkpoint is told, or to the end."""
    rng = random.Random(0)
    for room_again in (True, False):
        name = f"disk full, room again {'once that is told' if room_again else 'after the end'}"
        home = place.home("room" if room_again else "no-room")
        with small_disk(home / "run") as mounted:
            if not mounted:
                yield Fault(name, "not measured: no small disk can be mounted here", None, True)
                continue
            filler = home / "run" / "filler"
            with begun(home, WAYS["jit"], place.marks) as processes:
                aim(processes, read_marks(place.marks.with_suffix(".0")), "step", 2, [1], rng)
                fill(filler)
                while room_again and "COULD NOT BE WRITTEN" not in log_of(home) and processes[0].poll() is None:
                    time.sleep(0.01)
                if room_again:
                    filler.unlink()
                code, _ = ended(processes, 0.0)
            loud = log_of(home).count("COULD NOT BE WRITTEN")
            filler.unlink(missing_ok=True)
            after = place.compared(home) if room_again else place.end(home)
            seen = f"told {loud} times, exit code {code}; {'' if room_again else 'then the same command: '}{after}"
            yield Fault(name, seen, None, code == (0 if room_again else 2) and loud > 0 and after == "same end")


def peers(place: Place) -> Iterator[Fault]:
    """One of two processes is killed: under `seqlab launch`, and without it."""
    way = WAYS["2 processes"]
    for victim in (0, 1):
        home = place.home(f"launched-{victim}", "2 processes")
        command = [sys.executable, "-m", "seqlab.cli", "launch", "--processes", "2", "--", *TRAIN]
        with (home / "log.txt").open("wb") as log:
            env = environment(way, place.folder)
            launcher = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True)
            try:
                while launcher.poll() is None and not manifest.checkpoint_steps(home / "run"):
                    time.sleep(0.01)
                children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
                os.kill(sorted(map(int, children))[victim], signal.SIGKILL)
                code, seconds = ended([launcher], time.monotonic())
            finally:
                kill([launcher])
        named = f"process {victim} was killed by signal 9" in log_of(home)
        after = place.end(home, "2 processes")
        seen = f"exit code {code}{', named' * named}; then the same command: {after}"
        holds = code == 137 and named and after == "same end"
        yield Fault(f"process {victim} of 2 killed, under seqlab launch", seen, seconds, holds)
    for victim in (0, 1):
        home = place.home(f"peer-{victim}", "2 processes")
        options = ("--parallel.heartbeat", str(HEARTBEAT))
        with begun(home, way, place.marks, options=options) as processes:
            aim(processes, read_marks(place.marks.with_suffix(".0")), "step", 8, [1], random.Random(0))
            kill(processes[victim : victim + 1])
            code, seconds = ended([processes[1 - victim]], time.monotonic())
        after = place.end(home, "2 processes")
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        seen = f"the other: {how}; then the same command: {after}"
        holds = code not in (0, 75, None) and seconds < 2 * HEARTBEAT + 10 and after == "same end"
        yield Fault(f"process {victim} of 2 killed, heartbeat {HEARTBEAT} s", seen, seconds, holds)


def not_finite(place: Place) -> Iterator[Fault]:
    """A batch whose loss is not a number, under each policy."""
    kinds = {"stop": (2, "is not finite"), "skip": (0, "ITS UPDATE IS LEFT OUT"), "rollback": (0, "ROLLED BACK")}
    for policy, (wanted, words) in kinds.items():
        home = place.home(f"not-finite-{policy}")
        with begun(home, WAYS["jit"], place.marks, "nan", ("--nonfinite", policy)) as processes:
            code, _ = ended(processes, 0.0)
        told = log_of(home).count(words)
        named = any(name in log_of(home) for name in ("epoch 0, batch 7", "--batch 0/7"))
        seen = f"told {told} times{', with its batch' * named}; exit code {code}"
        yield Fault(f"a batch that is not finite, {policy}", seen, None, code == wanted and told == 1 and named)


KINDS: dict[str, Callable[[Place], Iterator[Fault]]] = {
    "signals": signals,
    "damages": damages,
    "disks": full_disks,
    "peers": peers,
    "nan": not_finite,
}


def table(found: Sequence[Fault]) -> Iterator[str]:
    yield "| fault | seen | seconds to the end | as promised |"
    yield "|---|---|---|---|"
    for one in found:
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        yield f"| {one.fault} | {one.seen} | {seconds} | {'yes' if one.holds else 'NO'} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """1: something is not as promised."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--folder", type=Path, help="where runs are; a new one by default, removed if all holds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    write_documents(folder / "documents")
    place = Place(folder, {})
    for way in ("jit", "2 processes") if "peers" in given.only else ("jit",):
        home = place.home(f"whole, {way}", way)
        place.whole[way] = run_whole(home, WAYS[way])
    found = []
    for kind in given.only:
        for one in KINDS[kind](place):
            print(one, flush=True)
            found.append(one)
    print("\n".join(table(found)))
    if given.json:
        given.json.write_text(json.dumps([one._asdict() for one in found], indent=1))
    holds = all(one.holds for one in found)
    if holds and given.folder is None:
        shutil.rmtree(folder)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
