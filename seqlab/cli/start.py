"""Setup, arguments and output that commands share."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from seqlab.cli.options import SINGLE_PROCESS, Processes
from seqlab.system.compilation import keep_compilations
from seqlab.system.errors import SeqlabError
from seqlab.system.memory import keep_freed_memory


def without_processes(arguments: list[str]) -> list[str]:
    """Returns the arguments without the options of a multi-process job, which may differ when the command is
    repeated.
    """
    names = tuple(f"--{field.name}" for field in dataclasses.fields(Processes))
    remaining, skip = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if not skip and name not in names:
            remaining.append(argument)
        skip = not skip and name in names and not equals
    return remaining


def start_computing(cluster: Processes = SINGLE_PROCESS, heartbeat: int = 100) -> None:
    """Configures memory, the compilation cache and, if there are several processes, the connection between them.

    Every command that computes calls it first. In a job of several processes, only process 0 prints, and the cache is
    off: only process 0 would write to it, and would wait for the others while they compile.
    """
    keep_freed_memory()
    if cluster == SINGLE_PROCESS:
        keep_compilations()
        return
    if cluster.coordinator is None:
        raise SeqlabError("--processes and --process need --coordinator HOST:PORT")
    from seqlab.distributed import hosts

    hosts.connect(cluster.coordinator, cluster.processes, cluster.process, heartbeat)
    if not hosts.is_process_zero():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def first_argument(arguments: list[str], name: str, usage: str) -> tuple[str, list[str]]:
    """Returns the first argument, on which the options depend, and the other arguments. Adds the parts of --parts."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage)
        sys.exit(0)
    if not arguments or not arguments[0]:
        raise SeqlabError(f"{name} is missing; {usage}")
    if arguments[0].startswith("-"):
        raise SeqlabError(f"{name} must come first; {usage}")
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--parts":
            use_parts(Path(value if equals else (arguments[i + 1 : i + 2] or [""])[0]))
    return arguments[0], arguments[1:]


def load_generator(run: Path, checkpoint: str, dtype: str | None = None, base: Path | None = None) -> Any:
    """Returns a run of a generator; `base` is the folder of its base. Raises `SeqlabError` for another model."""
    from seqlab.runs.loading import load

    loaded = load(run, checkpoint, dtype, base)
    task = loaded.experiment.task
    if not task.searches:
        advice = "use seqlab predict" if task.predicts else "fine-tune it on another task first"
        raise SeqlabError(f"a run of {type(task).__name__} does not generate text: {advice}")
    return loaded


def check_input(path: Path | None, option: str, read_twice: bool = False) -> None:
    """Raises `SeqlabError`, before the work, for an input that is not a file. A pipe can be read, but not twice."""
    if path is None:
        return
    if path.is_dir():
        raise SeqlabError(f"{option} {path}: this is a folder: give a file")
    if not path.exists():
        raise SeqlabError(f"{option} {path}: no such file: check the path")
    if read_twice and not path.is_file():
        raise SeqlabError(f"{option} {path}: this is not a file and cannot be read twice: write its lines to a file")


def check_output(path: Path | None, *inputs: Path | None) -> None:
    """Raises `SeqlabError`, before the work, for an output file that cannot be written or is also an input."""
    if path is not None and any(source is not None and path.resolve() == source.resolve() for source in inputs):
        raise SeqlabError(f"{path} is an input and would be overwritten: choose another file")
    if path is None:
        return
    if path.is_dir():
        raise SeqlabError(f"{path} is a folder, not a file: choose another output")
    if not path.parent.is_dir():
        fault = f"cannot be written because the folder {path.parent} does not exist"
        raise SeqlabError(f"{path} {fault}: choose another output")
    # A file is written under another name and renamed, so its folder must be writable. A device or a pipe is written
    # directly.
    written = path if path.exists() and not path.is_file() else path.resolve().parent
    if not os.access(written, os.W_OK):
        raise SeqlabError(f"{path}: no permission to write to {written}")


def dump_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def use_parts(folder: Path | None) -> None:
    if folder is not None:
        from seqlab.system import parts

        parts.use_parts(folder)
