"""Files and folders that appear whole or not at all, logs, and locks."""

import contextlib
import errno
import fcntl
import gzip
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import parse_json, read_whole


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that appears whole, by rename."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.rename(path)


MAX_LOG_SIZE = 1 << 30  # bytes: millions of steps


def read_jsonl(path: Path, values: Any = Any) -> list[dict[str, Any]]:
    """Returns the lines of a log, each an object of names and `values` with a `step`. An incomplete last line is
    ignored. Raises `SeqlabError` naming a line that is malformed, or of an earlier step than the line above it.
    """
    records: list[dict[str, Any]] = []
    lines = read_whole(path, MAX_LOG_SIZE).split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        value = parse_json(line, f"{path}:{number}", dict[str, values])
        step = value.get("step")
        if type(step) is not int or step < (records[-1]["step"] if records else 0):
            raise SeqlabError(f"{path}:{number}: damaged: no step, or an earlier one than the line above has")
        records.append(value)
    return records


class Journal:
    """A log of whole JSON lines, each with its `step`. Opening it keeps only the given `lines`, of those that
    `read_jsonl` returns. Lines that cannot be written, for example on a full disk, are retried with the next line.
    """

    def __init__(self, path: Path, lines: Iterable[dict[str, Any]]):
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))
        self.stream = path.open("r+b", buffering=0)
        self.whole = self.stream.seek(0, os.SEEK_END)
        self.waiting = b""

    def write(self, line: dict[str, Any]) -> OSError | None:
        """Writes a line, visible to readers at once. Returns the error where that fails."""
        self.waiting += json.dumps(line).encode() + b"\n"
        return self.flush()

    def flush(self) -> OSError | None:
        """Writes the waiting lines. Returns the error where that fails."""
        try:
            self.stream.seek(self.whole)
            written = self.stream.write(self.waiting) or 0
            if written < len(self.waiting):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                self.stream.truncate(self.whole)
            return error
        self.whole, self.waiting = self.whole + written, b""
        return None

    def close(self) -> OSError | None:
        """Writes the waiting lines and closes the file. Returns the error where writing fails."""
        error = self.flush()
        self.stream.close()
        return error


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """Returns the content of a file; `make()` creates it if it does not exist."""
    if not path.exists():
        with locked(path.with_name(".lock")):
            if not path.exists():  # otherwise another process was first
                write_atomically(path, make())
    return path.read_bytes()


def check_new(out: Path) -> None:
    """Raises for an output folder that exists."""
    if out.exists():
        raise SeqlabError(f"{out} exists: choose another --out")


def make_folder_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Creates `folder` with `fill`, which fills an empty folder, if it does not exist."""
    if not folder.exists():
        with locked(folder.parent / ".lock"):
            if not folder.exists():  # otherwise another process was first
                with atomic_folder(folder) as part:
                    fill(part)


def file_stamps(files: Iterable[tuple[str, Path]]) -> list[tuple[str, str, int, int]]:
    """Returns each file's label, path, size and modification time, which differ for an edited file."""
    return [(label, str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for label, p in files]


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Holds the lock file `path`; it is free again when the process ends, however it ends.

    If another process holds it: waits, or raises `SeqlabError` with the message `busy`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        for tries in reversed(range(10)):  # a reader, such as `seqlab runs`, holds it for an instant
            try:
                fcntl.flock(stream, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not tries:
                    raise SeqlabError(busy or "") from None
                time.sleep(0.05)
        yield


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which is renamed to `folder` when the block ends. An error leaves nothing.

    Leftovers of a killed process are removed first. Only one process may create `folder` at a time.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[TextIO]:
    """Gives a text stream to a file (gzipped if its name ends in .gz) or to standard output.

    The file appears whole when the block ends. An error leaves the previous file.
    """
    if path is None:
        yield sys.stdout
        return
    if path.exists() and not path.is_file():  # a device or a pipe; a folder is an error
        with path.open("w", encoding="utf-8") as stream:
            yield stream
        return
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        zipped = path.suffix == ".gz"
        with gzip.open(part, "wt", encoding="utf-8") if zipped else part.open("w", encoding="utf-8") as stream:
            yield stream
        part.rename(path)
    except OSError as error:
        raise SeqlabError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
