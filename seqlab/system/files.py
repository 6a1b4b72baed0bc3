"""Files that are whole or not there, and one writer at a time."""

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
    """The file appears, whole, by rename."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.rename(path)


LARGEST_LOG = 1 << 30  # bytes: of a line a step, millions


def read_jsonl(path: Path, values: Any = Any) -> list[dict[str, Any]]:
    """The lines of a log, each an object with a `step`, of names and such `values`; a last line that was cut short
    does not count. Raises `SeqlabError` naming the line that is something else, or of an earlier step than the one
    above it.
    """
    found: list[dict[str, Any]] = []
    whole = read_whole(path, LARGEST_LOG).split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(whole, 1):
        value = parse_json(line, f"{path}:{number}", dict[str, values])
        step = value.get("step")
        if type(step) is not int or step < (found[-1]["step"] if found else 0):
            raise SeqlabError(f"{path}:{number}: damaged: no step, or an earlier one than the line above has")
        found.append(value)
    return found


class Journal:
    """A log that is appended to: whole lines of JSON, each with its `step`. Opening it leaves the lines `held`, of
    those that `read_jsonl` gives. What cannot be written, on a full disk say, is kept, and tried again with the next.
    """

    def __init__(self, path: Path, held: Iterable[dict[str, Any]]):
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in held))
        self.stream = path.open("r+b", buffering=0)
        self.whole = self.stream.seek(0, os.SEEK_END)
        self.waiting = b""

    def write(self, line: dict[str, Any]) -> OSError | None:
        """Writes a line, which whoever reads the file sees at once; or gives the reason why not."""
        self.waiting += json.dumps(line).encode() + b"\n"
        return self.flush()

    def flush(self) -> OSError | None:
        """Writes what waits; or gives the reason why not."""
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
        """Writes what waits; or gives the reason why not. Nothing can be written afterwards."""
        error = self.flush()
        self.stream.close()
        return error


def made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a file, which is what `make` gives if it is not there yet."""
    if not path.exists():
        with locked(path.with_name(".lock")):
            if not path.exists():  # otherwise another process was first
                write_atomically(path, make())
    return path.read_bytes()


def check_new(out: Path) -> None:
    """Raises for a folder that is to be made, and is there."""
    if out.exists():
        raise SeqlabError(f"{out} exists: choose another --out")


def folder_made_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Makes `folder` by filling an empty one, if it is not there yet."""
    if not folder.exists():
        with locked(folder.parent / ".lock"):
            if not folder.exists():  # otherwise another process was first
                with folder_made_whole(folder) as part:
                    fill(part)


def stamps(files: Iterable[tuple[str, Path]]) -> list[tuple[str, str, int, int]]:
    """Each file's label, path, size and time of change: they differ for an edited file."""
    return [(label, str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for label, p in files]


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Holds the lock file `path`; it is free again when the process ends, however it ends.

    If another process holds it: waits, or raises `SeqlabError` with the message `busy`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        for tries in reversed(range(10)):  # one who only looks, such as `seqlab runs`, holds it for an instant
            try:
                fcntl.flock(stream, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not tries:
                    raise SeqlabError(busy or "") from None
                time.sleep(0.05)
        yield


@contextlib.contextmanager
def folder_made_whole(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `folder` when the block ends; an error in between leaves nothing.

    What a killed process left half-made is removed first: only one process may make `folder` at a time.
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
    """A text stream to a file (gzipped if its name ends in .gz) or to standard output.

    The file appears, whole, when the block ends; an error in between leaves what was there before.
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
