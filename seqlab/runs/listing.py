"""What runs a folder holds, and how they fare: read from their files alone, without JAX, in an instant.

A run is running while a process holds its lock; finished; dead, if it was begun and neither is true; or damaged.
"""

import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.system.errors import SeqlabError
from seqlab.system.terminal import filled, printable, width_of
from seqlab.system.untrusted import read_json

DEPTH = 3  # folders below the one that is named, in which runs are looked for
MOST = 1e300  # what is above it is no score
TAIL = 1 << 16  # bytes at the end of a log in which its last line is looked for


class Found(NamedTuple):
    """A run. What cannot be told is None: all but the first two and `problem`, of a damaged one."""

    run: str
    state: str  # running, finished, dead or damaged
    step: int | None = None  # the last that is known to be done
    steps: int | None = None
    checkpoint: int | None = None  # the step of the newest
    metric: str | None = None
    best: float | None = None
    best_step: int | None = None
    model: str | None = None
    task: str | None = None
    written: float | None = None  # when it last wrote, in seconds since 1970
    resume: str | None = None  # of a dead one: the command that goes on with it, to be read and never run from here
    problem: str | None = None  # of a damaged one


def find(folder: Path) -> list[Found]:
    """The runs in `folder`, itself among them if it is one, by name. Raises `SeqlabError` if it is no folder."""
    if not folder.is_dir():
        raise SeqlabError(f"no folder {folder}")
    return sorted(map(look, run_folders(folder, DEPTH)))


def run_folders(folder: Path, depth: int) -> Iterator[Path]:
    """Folders with an experiment, at most `depth` levels down; none within a run, none behind a symbolic link."""
    if (folder / "experiment.json").is_file():
        yield folder
    elif depth:
        try:
            with os.scandir(folder) as entries:
                below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except PermissionError:
            return
        for name in below:
            yield from run_folders(folder / name, depth - 1)


def look(run: Path) -> Found:
    """How a run fares; one whose files cannot be read is damaged, which is no error."""
    try:
        return read_run(run)
    except (SeqlabError, OSError) as error:
        return Found(str(run), "damaged", problem=str(error))


def read_run(run: Path) -> Found:
    path = run / "experiment.json"
    experiment = read_json(path, dict[str, Any])
    steps, metric = value_at(experiment, path, int, "steps"), value_at(experiment, path, str, "validation", "metric")
    model, task = (value_at(experiment, path, str, part, "part") for part in ("model", "task"))
    checkpoint, progress = None, {}
    manifest = newest_manifest(run)
    if manifest is not None:
        told = read_json(manifest, dict[str, Any])
        checkpoint, progress = value_at(told, manifest, int, "step"), value_at(told, manifest, dict, "progress")
    best, best_step = progress.get("best"), progress.get("best_step")
    if best is not None and not (type(best) in (int, float) and abs(best) < MOST and type(best_step) is int):
        raise SeqlabError(f"{manifest}: damaged: its best score is no number at a step")
    done = max(checkpoint or 0, last_step(run / "metrics.jsonl"))
    trained_here = manifest is None or "epoch" in progress  # and no mean of others, and from no other toolkit
    if held(run / ".lock"):
        state = "running"
    elif not trained_here or ((checkpoint or 0) >= steps and progress.get("judged")) or progress.get("stopped"):
        state = "finished"
    else:
        state = "dead"
    files = (path, run / "metrics.jsonl", run / "hashes.jsonl", manifest)
    written = max(file.stat().st_mtime for file in files if file is not None and file.exists())
    resume = command_of(run) if state == "dead" else None
    facts = (done, steps, checkpoint, metric, best, best_step, model, task, written, resume)
    return Found(str(run), state, *facts)


def value_at(values: Any, path: Path, kind: type, *names: str) -> Any:
    """What stands in nested objects under some names. Raises `SeqlabError` if it is not there, or of another type."""
    for name in names:
        values = values.get(name) if isinstance(values, dict) else None
    if type(values) is not kind:
        raise SeqlabError(f"{path}: damaged: no {'.'.join(names)}")
    return values


def newest_manifest(run: Path) -> Path | None:
    """That of the checkpoint with the highest step."""
    steps = {int(p.parent.name): p for p in run.glob("checkpoints/*/manifest.json") if p.parent.name.isdecimal()}
    return steps[max(steps)] if steps else None


def last_step(log: Path) -> int:
    """The step of a log's last whole line; 0 if it has none."""
    if not log.is_file():
        return 0
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - TAIL, 0))
        whole = stream.read().split(b"\n")[:-1]
    if not whole:
        return 0
    try:
        line = json.loads(whole[-1])
    except (ValueError, RecursionError) as error:
        raise SeqlabError(f"{log}: damaged: {error}") from None
    return value_at(line, log, int, "step")


def held(lock: Path) -> bool:
    """Whether a process holds a lock file, which is neither made nor written to.

    It is tried as a reader's lock, so that two who look do not see one another.
    """
    if not lock.is_file():
        return False
    with lock.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def command_line(folder: Path, words: Sequence[str]) -> str:
    """What RUN/command.txt holds: a command, and the folder it is given in, as one line for a shell."""
    return f"cd {shlex.quote(str(folder))} && {shlex.join(words)}"


def command_of(run: Path) -> str | None:
    """The command that goes on with a run: the one that began it, and where it has been moved, its --out changed.

    Raises `SeqlabError` for anything but one `seqlab train`: it may be from others, and is shown to be copied.
    """
    path = run / "command.txt"
    if not path.is_file():
        return None
    try:
        line = path.read_text(encoding="utf-8").removesuffix("\n")
        cd, folder, also, *words = shlex.split(line)
    except ValueError:
        raise SeqlabError(f"{path}: damaged: no command") from None
    if line != command_line(Path(folder), words) or (cd, also) != ("cd", "&&") or words[:2] != ["seqlab", "train"]:
        raise SeqlabError(f"{path}: damaged: not one `seqlab train`")
    for i, word in enumerate(words[:-1]):
        if word == "--out" and (Path(folder) / words[i + 1]).resolve() != run.resolve():
            words[i + 1] = str(run.resolve())
    return command_line(Path(folder), words)


def plain(found: Found) -> dict[str, Any]:
    """For JSON: the time as text, in UTC."""
    written = None if found.written is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.written))
    return {**found._asdict(), "written": written}


def shown(runs: Sequence[Found], now: float, width: int | None = None) -> str:
    """For a terminal: a table, of fewer columns where they do not fit into `width`; below a dead run how to go on
    with it, below a damaged one what is wrong.
    """
    names = ("RUN", "STATE", "STEP", "BEST", "WROTE", "MODEL", "TASK")
    rows = [names, *(cells(one, now) for one in runs)]
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    while width is not None and len(widths) > 2 and sum(widths) + 2 * (len(widths) - 1) > width:
        widths.pop()
    lines = []
    for row, one in zip(rows, [None, *runs], strict=True):
        lines.append("  ".join(map(filled, row, widths)).rstrip())
        if one is not None and one.state == "damaged":
            lines.append(f"    {printable(one.problem or '')}")
        elif one is not None and one.state == "dead":
            since = f"from step {one.checkpoint:,}" if one.checkpoint else "from the beginning"
            lines.append(f"    {since}: {printable(one.resume or 'the command that began it')}")
    return "\n".join(lines)


def cells(one: Found, now: float) -> tuple[str, ...]:
    name = printable(one.run)
    if one.state == "damaged":
        return (name, one.state, "", "", "", "", "")
    best = "" if one.best is None else f"{one.metric} {one.best:.4g} at {one.best_step:,}"
    return (
        name,
        one.state,
        f"{one.step:,} / {one.steps:,}",
        printable(best),
        age(now - (one.written or now)),
        printable(one.model or ""),
        printable(one.task or ""),
    )


def age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
