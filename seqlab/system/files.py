"""Atomic writing of files and folders, logs, and locks."""

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
    """Writes a file atomically, by renaming a complete file."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.rename(path)


MAX_LOG_SIZE = 1 << 30  # bytes, enough for millions of steps


def read_jsonl(path: Path, values: Any = Any) -> list[dict[str, Any]]:
    """Returns the lines of a log, each a JSON object that has a `step` and values of the type `values`. An incomplete
    last line is ignored. Raises `SeqlabError`, naming the line, if a line is malformed or its step is lower than the
    step of the previous line.
    """
    records: list[dict[str, Any]] = []
    lines = read_whole(path, MAX_LOG_SIZE).split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        value = parse_json(line, f"{path}:{number}", dict[str, values])
        step = value.get("step")
        if type(step) is not int or step < (records[-1]["step"] if records else 0):
            raise SeqlabError(f"{path}:{number}: damaged: its step is missing or lower than in the previous line")
        records.append(value)
    return records


class Journal:
    """A log of complete JSON lines, each with a `step`. Opening it replaces the content of the file by `lines`, a
    subset of the lines that `read_jsonl` returns. Lines that cannot be written, for example on a full disk, are
    retried with the next line.
    """

    def __init__(self, path: Path, lines: Iterable[dict[str, Any]]):
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))
        self.stream = path.open("r+b", buffering=0)
        self.whole = self.stream.seek(0, os.SEEK_END)
        self.waiting = b""

    def write(self, line: dict[str, Any]) -> OSError | None:
        """Writes a line, which readers can see immediately. Returns the error if writing fails."""
        self.waiting += json.dumps(line).encode() + b"\n"
        return self.flush()

    def flush(self) -> OSError | None:
        """Writes the waiting lines. Returns the error if writing fails."""
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
        """Writes the waiting lines and closes the file. Returns the error if writing fails."""
        error = self.flush()
        self.stream.close()
        return error


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """Returns the content of a file. Writes `make()` to it first if it does not exist."""
    if not path.exists():
        with locked(path.with_name(".lock")):
            if not path.exists():  # unless another process was first
                write_atomically(path, make())
    return path.read_bytes()


def check_new(out: Path) -> None:
    """Raises `SeqlabError` if an output folder exists or cannot be created."""
    if out.exists():
        raise SeqlabError(f"{out} already exists: choose another --out")
    check_creatable(out)


def path_in(folder: Path, path: str) -> Path:
    """Returns a path that is relative to a folder, which need not exist yet."""
    return Path(os.path.normpath(folder / path))


def check_creatable(folder: Path) -> None:
    """Raises `SeqlabError` if a folder neither exists nor can be created: a folder above it is a file or cannot be
    written.
    """
    if folder.exists():
        return
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise SeqlabError(f"{folder} cannot be created because {above} is not a folder: choose another folder")
    if not os.access(above, os.W_OK):
        raise SeqlabError(f"{folder} cannot be created: no permission to write to {above}")


def make_folder_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Creates `folder` atomically if it does not exist. `fill` writes its content into an empty folder."""
    if not folder.exists():
        with locked(folder.parent / ".lock"):
            if not folder.exists():  # unless another process was first
                with atomic_folder(folder) as part:
                    fill(part)


def file_stamps(files: Iterable[tuple[str, Path]]) -> list[tuple[str, str, int, int, int]]:
    """Returns the label, path, size and times of each file, to detect edited files. The change time (ctime) differs
    even if an edit keeps the size and the modification time.
    """
    stats = [(label, path.resolve(), path.stat()) for label, path in files]
    return [(label, str(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for label, path, s in stats]


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Holds the lock file `path`, which the system releases when the process ends, however it ends.

    If another process holds it, waits, or raises `SeqlabError` with the message `busy` if that is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        for tries in reversed(range(10)):  # a reader, such as `seqlab runs`, holds the lock briefly
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
    """Yields an empty folder, which is renamed to `folder` at the end of the block. An error removes it.

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
    """Yields a text stream to a file (gzipped if its name ends in .gz) or to standard output.

    The file is replaced atomically at the end of the block. An error leaves the previous file unchanged.
    """
    if path is None:
        yield sys.stdout
        return
    if path.exists() and not path.is_file():  # a device or a pipe; a folder raises an error
        with path.open("w", encoding="utf-8") as stream:
            yield stream
        return
    with replaced_file(path) as part:
        zipped = path.suffix == ".gz"
        with gzip.open(part, "wt", encoding="utf-8") if zipped else part.open("w", encoding="utf-8") as stream:
            yield stream


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces `path` at the end of the block. An error removes it, and
    leaves the previous file unchanged.
    """
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.rename(path)
    except OSError as error:
        raise SeqlabError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
