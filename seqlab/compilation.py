"""Compiled programs, kept from one process to the next.

    $XDG_CACHE_HOME/seqlab/compiled-MACHINE/    by default under ~/.cache; one file for each program

JAX writes and reads the files and names them by program, versions and flags. MACHINE is a hash of the processor's
abilities: hosts that share a home folder do not read the programs of another kind of processor.
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

LIMIT = 1 << 30  # bytes of all files together
MIN_SECONDS = 0.2  # a program that compiles faster is not kept
CHECKED = "checked"  # its time of modification: the files before it are whole


def keep_compilations() -> None:
    """Makes JAX keep what it compiles. Call it before anything is compiled.

    Does nothing if $JAX_COMPILATION_CACHE_DIR is set: JAX then uses that folder, and the limit does not apply to it.
    Nothing is kept if there is no folder that this user alone can write to, because JAX runs what it finds there.
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
    # A file that is damaged later, or a full disk, costs a compilation and is no concern of the user.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqlab"


def machine_folder() -> Path:
    """The folder for programs that this machine can run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        abilities = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        abilities = platform.processor()
    machine = hashlib.sha256(f"{platform.system()} {platform.machine()} {abilities}".encode()).hexdigest()[:12]
    return cache_folder() / f"compiled-{machine}"


def make_private(folder: Path) -> bool:
    """Makes the folder. Returns whether it is this user's, and nobody else can write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022 and os.access(folder, os.W_OK)


def entries(folder: Path) -> list[Path]:
    """The files of compiled programs in a folder, the least recently used first."""

    def last_use(path: Path) -> float:
        status = path.stat()
        return max(status.st_atime, status.st_mtime)

    found = []
    for path in folder.glob("*-cache"):
        try:
            found.append((last_use(path), path))
        except OSError:  # another process has removed it
            continue
    return [path for _, path in sorted(found)]


def remove_damaged(folder: Path) -> None:
    """Removes files that were cut off, for example by SIGKILL while they were written. JAX would never replace them.

    Looks at files that are newer than the last check.
    """
    stamp, begin = folder / CHECKED, time.time()
    checked = stamp.stat().st_mtime if stamp.exists() else 0.0
    decompress = decompressor()
    for path in entries(folder):
        try:
            if path.stat().st_mtime >= checked:
                decompress(path.read_bytes())
        except FileNotFoundError:
            continue
        except Exception:  # each library has errors of its own
            path.unlink(missing_ok=True)
    try:
        stamp.touch()
        os.utime(stamp, (begin, begin))
    except OSError:  # a full disk: the next process checks them again
        return


def decompressor() -> Callable[[bytes], bytes]:
    """The inverse of what JAX compresses with: zstd where Python or a package has it, otherwise zlib."""
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
    paths = entries(folder)
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    excess = sum(sizes) - limit
    for path, size in zip(paths, sizes, strict=True):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size


class Usage(NamedTuple):
    programs: int
    size: int  # bytes


def usage() -> Usage:
    """What is kept, for all kinds of machine."""
    paths = [path for folder in cache_folder().glob("compiled-*") for path in entries(folder)]
    return Usage(len(paths), sum(path.stat().st_size for path in paths))


def clear() -> Usage:
    """Removes all kept programs. Returns what was there. Raises `SeqlabError` for a folder that cannot be removed."""
    removed = usage()
    for folder in cache_folder().glob("compiled-*"):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise SeqlabError(f"{folder}: cannot be removed: {error.strerror or error}") from None
    return removed
