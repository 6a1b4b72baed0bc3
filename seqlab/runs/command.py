"""The command that started a run, stored in RUN/command.txt."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from seqlab.system.errors import SeqlabError


def command_line(folder: Path, words: Sequence[str]) -> str:
    """Returns the content of RUN/command.txt: a shell line that changes to the working folder and runs a command."""
    return f"cd {shlex.quote(str(folder))} && {shlex.join(words)}"


def command_of(run: Path) -> str | None:
    """Returns the command that resumes a run: the command that started it, with a new --out if the run was moved.

    Raises `SeqlabError` unless it is a single `seqlab train`: the file is not trusted, and users copy the command.
    """
    path = run / "command.txt"
    if not path.is_file():
        return None
    try:
        line = path.read_text(encoding="utf-8").removesuffix("\n")
        cd, folder, separator, *words = shlex.split(line)
    except ValueError:
        raise SeqlabError(f"{path}: damaged: not a command") from None
    is_train = [cd, separator, *words[:2]] == ["cd", "&&", "seqlab", "train"]
    if line != command_line(Path(folder), words) or not is_train:
        raise SeqlabError(f"{path}: damaged: it must contain exactly one `seqlab train` command")
    for i, word in enumerate(words[:-1]):
        if word == "--out" and (Path(folder) / words[i + 1]).resolve() != run.resolve():
            words[i + 1] = str(run.resolve())
    return command_line(Path(folder), words)
