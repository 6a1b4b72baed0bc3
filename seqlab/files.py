"""Files that are whole or not there, and one writer at a time."""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from seqlab.errors import SeqlabError


def write_atomically(path: Path, content: str | bytes) -> None:
    """The file appears, whole, by rename."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.rename(path)


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
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SeqlabError(busy or "") from None
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
