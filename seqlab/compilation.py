"""Compiled programs, kept from one process to the next.

    $XDG_CACHE_HOME/seqlab/compiled-MACHINE/    by default under ~/.cache; one file for each program

JAX writes and reads the files and names them by program, versions and flags. MACHINE is a hash of the processor's
features: hosts that share a home folder do not read the programs of another kind of processor.
"""

import hashlib
import os
import platform
import shutil
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from seqlab.errors import SeqlabError

LIMIT = 1 << 30  # bytes, for each kind of machine
MIN_SECONDS = 0.2  # a program that compiles faster is not kept
CHECKED = "checked"  # its time of modification: files that are older are known to be complete
MARGIN = 60.0  # seconds by which the clock of a file system may differ from this machine's


class Entry(NamedTuple):
    """A file with a compiled program."""

    last_use: float
    size: int
    path: Path


def keep_compilations() -> None:
    """Makes JAX keep what it compiles. Call it before anything is compiled.

    Does nothing if $JAX_COMPILATION_CACHE_DIR is set: JAX then uses that folder, and the limit does not apply to it.
    Keeps nothing unless the folder belongs to this user and nobody else can write to it, because JAX executes the
    files that it reads.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = machine_folder()
    if not make_private(folder):
        return
    remove_damaged(folder)
    remove_oldest(folder, LIMIT)
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    # JAX compiles again if a file is damaged or the disk is full. The user need not act.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqlab"


def machine_folder() -> Path:
    """The folder for programs that this machine can run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        features = platform.processor()
    machine = hashlib.sha256(f"{platform.system()} {platform.machine()} {features}".encode()).hexdigest()[:12]
    return cache_folder() / f"compiled-{machine}"


def make_private(folder: Path) -> bool:
    """Creates the folder. Returns whether it belongs to this user and nobody else can write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022 and os.access(folder, os.W_OK)


def entries(folder: Path) -> list[Entry]:
    """The compiled programs in a folder, the least recently used first."""
    kept = []
    for path in folder.glob("*-cache"):
        try:
            status = path.stat()
        except OSError:  # another process has removed it
            continue
        kept.append(Entry(max(status.st_atime, status.st_mtime), status.st_size, path))
    return sorted(kept)


def remove_damaged(folder: Path) -> None:
    """Removes incomplete files, for example after SIGKILL during a write. JAX never overwrites them.

    Checks only files that changed after the last check, or shortly before it.
    """
    stamp, begin = folder / CHECKED, time.time() - MARGIN
    try:
        checked = stamp.stat().st_mtime
    except OSError:
        checked = 0.0
    decompress = decompressor()
    for entry in entries(folder):
        try:
            if entry.path.stat().st_mtime >= checked:
                decompress(entry.path.read_bytes())
        except FileNotFoundError:
            continue
        except Exception:  # each library has errors of its own
            entry.path.unlink(missing_ok=True)
    try:
        stamp.touch()
        os.utime(stamp, (begin, begin))
    except OSError:  # a full disk: the next process checks them again
        return


def decompressor() -> Callable[[bytes], bytes]:
    """Returns the inverse of JAX's compression: zstd if Python or a package has it, otherwise zlib."""
    try:
        from compression import zstd  # pyright: ignore[reportMissingImports]

        return zstd.decompress
    except ImportError:
        pass
    try:
        import zstandard  # pyright: ignore[reportMissingImports]

        return zstandard.ZstdDecompressor().decompress
    except ImportError:
        return zlib.decompress


def remove_oldest(folder: Path, limit: int) -> None:
    """Removes the least recently used files until all together have at most `limit` bytes."""
    kept = entries(folder)
    excess = sum(entry.size for entry in kept) - limit
    for entry in kept:
        if excess <= 0:
            return
        entry.path.unlink(missing_ok=True)
        excess -= entry.size


class Usage(NamedTuple):
    """A number of compiled programs, and their size in bytes."""

    programs: int
    size: int


def usage() -> Usage:
    """Returns the number and the size of the kept programs, for all kinds of machine."""
    sizes = [entry.size for folder in cache_folder().glob("compiled-*") for entry in entries(folder)]
    return Usage(len(sizes), sum(sizes))


def clear() -> Usage:
    """Removes all kept programs, and returns their number and size. Raises `SeqlabError` where that fails."""
    removed = usage()
    for folder in cache_folder().glob("compiled-*"):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise SeqlabError(f"{folder}: cannot be removed: {error.strerror or error}") from None
    return removed
