"""The list of the runs in a folder, read from their files without JAX.

The state of a run is running if a process holds its lock, finished, interrupted if it is neither, or damaged.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.runs.command import command_of
from seqlab.runs.manifest import MANIFEST, checkpoint_steps
from seqlab.system.errors import SeqlabError
from seqlab.system.terminal import pad_right, printable, width_of
from seqlab.system.untrusted import read_json

MAX_DEPTH = 3  # levels of folders that are searched for runs
MAX_SCORE = 1e300  # a larger number is not a score
TAIL = 1 << 16  # bytes at the end of a log that are searched for its last line


class RunStatus(NamedTuple):
    """The status of a run. Unknown fields are None; a damaged run has only `run`, `state` and `problem`."""

    run: str
    state: str  # running, finished, interrupted or damaged
    step: int | None = None  # the last step that is known to be complete
    steps: int | None = None
    checkpoint: int | None = None  # the step of the latest checkpoint
    metric: str | None = None
    best: float | None = None
    best_step: int | None = None
    model: str | None = None
    task: str | None = None
    written: float | None = None  # the time of its last write, in seconds since 1970
    resume: str | None = None  # the command that resumes an interrupted run; seqlab shows it, but never runs it
    problem: str | None = None  # the error of a damaged run


def find_runs(folder: Path) -> list[RunStatus]:
    """Returns the status of each run in `folder`, or of `folder` itself if it is a run, sorted by name.

    Raises `SeqlabError` if `folder` is not a folder.
    """
    if not folder.is_dir():
        raise SeqlabError(f"{folder} is not a folder")
    return sorted(map(inspect_run, run_folders(folder, MAX_DEPTH)))


def run_folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yields the folders of runs, at most `depth` levels down. Does not search runs or follow links."""
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


def inspect_run(run: Path) -> RunStatus:
    """Returns the status of a run. If its files cannot be read, the status is damaged, and no error is raised."""
    try:
        return read_run(run)
    except (SeqlabError, OSError) as error:
        return RunStatus(str(run), "damaged", problem=str(error))


def read_run(run: Path) -> RunStatus:
    """Returns the status of a run. Raises `SeqlabError` or `OSError` if files are damaged."""
    path = run / "experiment.json"
    experiment = read_json(path, dict[str, Any])
    steps, metric = value_at(experiment, path, int, "steps"), value_at(experiment, path, str, "validation", "metric")
    patience = value_at(experiment, path, int, "validation", "patience")
    model, task = (value_at(experiment, path, str, part, "part") for part in ("model", "task"))
    checkpoint, progress = None, {}
    manifest = newest_manifest(run)
    if manifest is not None:
        content = read_json(manifest, dict[str, Any])
        checkpoint = value_at(content, manifest, int, "step")
        progress = value_at(content, manifest, dict, "progress")
    best, best_step = progress.get("best"), progress.get("best_step")
    if best is not None and not (type(best) in (int, float) and abs(best) < MAX_SCORE and type(best_step) is int):
        raise SeqlabError(f"{manifest}: damaged: best must be a number and best_step an integer")
    done = max(checkpoint or 0, last_step(run / "metrics.jsonl"))
    trained_here = manifest is None or "epoch" in progress  # neither imported nor written from another run
    if is_locked(run / ".lock"):
        state = "running"
    elif (
        not trained_here
        or ((checkpoint or 0) >= steps and progress.get("judged"))
        or stopped_early(progress, patience)
    ):
        state = "finished"
    else:
        state = "interrupted"
    files = (path, run / "metrics.jsonl", run / "hashes.jsonl", manifest)
    written = max(file.stat().st_mtime for file in files if file is not None and file.exists())
    resume = command_of(run) if state == "interrupted" else None
    facts = (done, steps, checkpoint, metric, best, best_step, model, task, written, resume)
    return RunStatus(str(run), state, *facts)


def stopped_early(progress: dict[str, Any], patience: int) -> bool:
    """Returns whether a run has ended before its last step: by early stopping, with its present patience, or because
    its model was counted.
    """
    waited = progress.get("waited")
    counted = bool(progress.get("stopped")) and waited == 0
    return counted or (type(waited) is int and bool(progress.get("judged")) and 0 < patience <= waited)


def value_at(values: Any, path: Path, kind: type, *names: str) -> Any:
    """Returns the value at a path of names. Raises `SeqlabError` if it is missing or has the wrong type."""
    for name in names:
        values = values.get(name) if isinstance(values, dict) else None
    if type(values) is not kind:
        raise SeqlabError(f"{path}: damaged: {'.'.join(names)} is missing or has the wrong type")
    return values


def newest_manifest(run: Path) -> Path | None:
    """Returns the path of the manifest of the latest checkpoint, if there is one."""
    steps = checkpoint_steps(run)
    return run / "checkpoints" / str(steps[-1]) / MANIFEST if steps else None


def last_step(log: Path) -> int:
    """Returns the step of the last complete line of a log, or 0 for a log without lines."""
    if not log.is_file():
        return 0
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - TAIL, 0))
        lines = stream.read().split(b"\n")[:-1]
    if not lines:
        return 0
    try:
        line = json.loads(lines[-1])
    except (ValueError, RecursionError) as error:
        raise SeqlabError(f"{log}: damaged: {error}") from None
    return value_at(line, log, int, "step")


def is_locked(lock: Path) -> bool:
    """Returns whether a process holds a lock file. Neither creates nor changes the file.

    Tries a shared lock, so that concurrent readers do not mistake each other for a running process.
    """
    if not lock.is_file():
        return False
    with lock.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def to_json(status: RunStatus) -> dict[str, Any]:
    """Returns the fields as JSON values, with the time as a string in UTC."""
    written = None if status.written is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.written))
    return {**status._asdict(), "written": written}


def format_table(runs: Sequence[RunStatus], now: float, width: int | None = None) -> str:
    """Returns a table for a terminal. Omits the last columns if they do not fit into `width`.

    After an interrupted run comes the command that resumes it, after a damaged run its problem. `now`: seconds since
    1970.
    """
    names = ("RUN", "STATE", "STEP", "BEST", "WROTE", "MODEL", "TASK")
    rows = [names, *(cells(status, now) for status in runs)]
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    while width is not None and len(widths) > 2 and sum(widths) + 2 * (len(widths) - 1) > width:
        widths.pop()
    lines = []
    for row, status in zip(rows, [None, *runs], strict=True):
        lines.append("  ".join(map(pad_right, row, widths)).rstrip())
        if status is not None and status.state == "damaged":
            lines.append(f"    {printable(status.problem or '')}")
        elif status is not None and status.state == "interrupted":
            since = f"from step {status.checkpoint:,}" if status.checkpoint else "from the beginning"
            lines.append(f"    {since}: {printable(status.resume or 'the command that started it')}")
    return "\n".join(lines)


def cells(status: RunStatus, now: float) -> tuple[str, ...]:
    """Returns the cells of a run in the table."""
    name = printable(status.run)
    if status.state == "damaged":
        return (name, status.state, "", "", "", "", "")
    best = "" if status.best is None else f"{status.metric} {status.best:.4g} at {status.best_step:,}"
    return (
        name,
        status.state,
        f"{status.step:,} / {status.steps:,}",
        printable(best),
        age(now - (status.written or now)),
        printable(status.model or ""),
        printable(status.task or ""),
    )


def age(seconds: float) -> str:
    """Returns an age in words, such as "3 h ago"."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
