"""TODO cli.start."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from seqlab.cli.options import ALONE, Processes
from seqlab.system.compilation import keep_compilations
from seqlab.system.errors import SeqlabError, at_least
from seqlab.system.memory import keep_freed_memory


def alone(arguments: list[str]) -> list[str]:
    """The arguments without those that make a process one of several, which another time are others."""
    names = tuple(f"--{field.name}" for field in dataclasses.fields(Processes))
    kept, skip = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if not skip and name not in names:
            kept.append(argument)
        skip = not skip and name in names and not equals
    return kept


def start_computing(cluster: Processes = ALONE, heartbeat: int = 100) -> None:
    """Configures memory, the compilation cache and, if there are several processes, the connection between them.

    Call it first in every command that computes. Of several processes only the first prints, and the cache is off:
    only the first would write to it, and would then wait for the others while they compile.
    """
    keep_freed_memory()
    if cluster == ALONE:
        keep_compilations()
        return
    if cluster.coordinator is None:
        raise SeqlabError("--processes and --process need --coordinator HOST:PORT")
    from seqlab.distributed import hosts

    at_least("parallel.heartbeat", heartbeat, 1)
    hosts.connect(cluster.coordinator, cluster.processes, cluster.process, heartbeat)
    if not hosts.is_process_zero():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def first_argument(arguments: list[str], what: str, usage: str) -> tuple[str, list[str]]:
    """The first argument, on which the options hinge, and the others; a user's parts are found from here on."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        sys.exit(0)
    if arguments[0].startswith("-"):
        raise SeqlabError(f"{what} comes first; {usage}")
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--parts":
            use_parts(Path(value if equals else (arguments[i + 1 : i + 2] or [""])[0]))
    return arguments[0], arguments[1:]


def load_writer(run: Path, checkpoint: str, dtype: str | None = None) -> Any:
    """A run that can write; raises for one that cannot."""
    from seqlab.runs.loading import load

    loaded = load(run, checkpoint, dtype)
    kind = loaded.experiment.task.KIND
    if kind != "generator":
        raise SeqlabError(f"a {kind} writes no text, and search is for generators: judge it by seqlab evaluate")
    return loaded


def check_output(path: Path | None, *inputs: Path | None) -> None:
    """Refuses, before the work is done, a file that could not be written after it, or that is read."""
    if path is not None and any(one is not None and path.resolve() == one.resolve() for one in inputs):
        raise SeqlabError(f"{path} is read, and would be written over: choose another file")
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise SeqlabError(f"{path}: {'is a folder' if path.is_dir() else f'no folder {path.parent}'}")


def dump_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def use_parts(folder: Path | None) -> None:
    if folder is not None:
        from seqlab import catalogue

        catalogue.use_parts(folder)
