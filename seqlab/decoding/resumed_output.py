"""Output files that are continued after an interruption."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from seqlab.system.errors import SeqlabError
from seqlab.system.files import write_atomically
from seqlab.system.untrusted import read_json


def digest(paths: Iterable[Path | None]) -> str:
    """Returns the SHA-256 of some files."""
    total = hashlib.sha256()
    for path in paths:
        if path is not None:
            with path.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        total.update(b"/")
    return total.hexdigest()


def record_of(path: Path) -> Path:
    """Returns the path of the record next to an output file."""
    return path.with_name(path.name + ".resume")


@contextlib.contextmanager
def resumed_output(path: Path, identity: dict[str, Any], lines_each: int) -> Iterator[tuple[TextIO, int]]:
    """Yields a text stream at the end of the file, and the number of inputs whose `lines_each` lines it already
    contains. The lines of an incomplete input are removed. `identity` is stored next to the file, and must not
    change.

    Raises `SeqlabError` for a file that was not started this way, or was started with other options or another input.
    """
    record = record_of(path)
    content = json.dumps(identity, sort_keys=True, default=str, indent=1)
    if path.suffix == ".gz":
        raise SeqlabError(f"{path}: --resume needs a plain output file, not .gz")
    if os.path.lexists(path) and not path.is_file():
        raise SeqlabError(f"{path} is not a regular file: choose another --output")
    if record.exists():
        before = read_json(record, dict[str, Any])
        changed = [name for name, value in json.loads(content).items() if before.get(name) != value]
        if changed:
            raise SeqlabError(
                f"{path} was started by a different command (changed: {' and '.join(changed)}): repeat that command, "
                f"or remove {path} and {record}"
            )
    elif path.exists():
        raise SeqlabError(f"{path} was not written with --resume: remove it, or choose another --output")
    write_atomically(record, content)
    path.touch()
    with path.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SeqlabError(f"{path} is being written by another process") from None
        done, size, whole = 0, 0, 0
        for line in stream:
            if not line.endswith(b"\n"):
                break
            done, size = done + 1, size + len(line)
            whole = size if done % lines_each == 0 else whole
        stream.truncate(whole)
        stream.seek(whole)
        with io.TextIOWrapper(stream, encoding="utf-8") as text:
            yield text, done // lines_each
