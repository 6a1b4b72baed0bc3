"""The command that began a run, as RUN/command.txt holds it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from seqlab.system.errors import SeqlabError


def command_line(folder: Path, words: Sequence[str]) -> str:
    """Returns the content of RUN/command.txt: a command and its working folder, as one line for a shell."""
    return f"cd {shlex.quote(str(folder))} && {shlex.join(words)}"


def command_of(run: Path) -> str | None:
    """Returns the command that resumes a run: the command that began it, with another --out if the run was moved.

    Raises `SeqlabError` for anything but one `seqlab train`: users copy what is shown, and the file is not trusted.
    """
    path = run / "command.txt"
    if not path.is_file():
        return None
    try:
        line = path.read_text(encoding="utf-8").removesuffix("\n")
        cd, folder, separator, *words = shlex.split(line)
    except ValueError:
        raise SeqlabError(f"{path}: damaged: no command") from None
    is_train = [cd, separator, *words[:2]] == ["cd", "&&", "seqlab", "train"]
    if line != command_line(Path(folder), words) or not is_train:
        raise SeqlabError(f"{path}: damaged: not one `seqlab train`")
    for i, word in enumerate(words[:-1]):
        if word == "--out" and (Path(folder) / words[i + 1]).resolve() != run.resolve():
            words[i + 1] = str(run.resolve())
    return command_line(Path(folder), words)
