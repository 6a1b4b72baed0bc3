"""The persistent cache of compiled programs.

    $XDG_CACHE_HOME/seqlab/compiled-MACHINE/    by default under ~/.cache; one file for each program

JAX writes and reads the files, and names them by program, versions and flags. MACHINE is a hash of the processor
features: hosts with a shared home folder do not read programs for a different kind of processor.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import stat
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from seqlab.system.errors import SeqlabError

LIMIT = 1 << 30  # bytes, for each kind of machine
MIN_SECONDS = 0.2  # programs that compile faster are not cached
STAMP = "checked"  # a file; programs older than its modification time are known to be complete
PROGRAM = re.compile(r".*-[0-9a-f]{64}-cache")  # the file names that JAX chooses
MARGIN = 60.0  # maximum difference between the clocks of the file system and of this machine, in seconds


class Entry(NamedTuple):
    """A file with a compiled program."""

    last_use: float  # seconds since 1970, like `changed`
    changed: float
    size: int  # bytes
    path: Path


def keep_compilations() -> None:
    """Makes JAX cache compiled programs. Must be called before anything is compiled.

    Does nothing if $JAX_COMPILATION_CACHE_DIR is set: JAX then uses that folder, without the size limit. Does nothing
    unless the folder belongs to this user and nobody else can write to it, because JAX executes the files that it
    reads.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        folder = machine_folder()
    except SeqlabError:
        return
    if not make_private(folder):
        return
    remove_damaged(folder)
    remove_oldest(folder, LIMIT)
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    # The caches of XLA would use a subfolder without a size limit, and make each program depend on the folder's path.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    # If a file is damaged or the disk is full, JAX compiles again, and the user need not do anything.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")


def cache_folder() -> Path:
    """Returns the cache folder of seqlab. Raises `SeqlabError` if the user has no home folder."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if configured.is_absolute():  # the XDG specification says to ignore relative paths
        return configured / "seqlab"
    try:
        return Path.home() / ".cache" / "seqlab"
    except RuntimeError:
        raise SeqlabError("no home folder to cache compiled programs in: set XDG_CACHE_HOME to a folder") from None


def machine_folder() -> Path:
    """Returns the folder for programs that this machine can run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        features = platform.processor()
    machine = hashlib.sha256(f"{platform.system()} {platform.machine()} {features}".encode()).hexdigest()[:12]
    return cache_folder() / f"compiled-{machine}"


def make_private(folder: Path) -> bool:
    """Creates the folder. Returns whether it and its parent belong to this user and nobody else can change them."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        folders = [os.lstat(path) for path in (folder, folder.parent)]
        above = os.stat(folder.parent.parent)
    except OSError:
        return False
    private = all(stat.S_ISDIR(x.st_mode) and x.st_uid == os.getuid() and not x.st_mode & 0o022 for x in folders)
    fixed = not above.st_mode & 0o022 or bool(above.st_mode & stat.S_ISVTX)  # nobody else can rename the parent
    return private and fixed and os.access(folder, os.W_OK)


def entries(folder: Path) -> list[Entry]:
    """Returns the compiled programs in a folder, least recently used first."""
    programs = []
    for path in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
        try:
            status = path.lstat()
        except OSError:  # another process has removed it
            continue
        if stat.S_ISREG(status.st_mode) and PROGRAM.fullmatch(path.name):
            changed = max(status.st_mtime, status.st_ctime)
            programs.append(Entry(max(status.st_atime, changed), changed, status.st_size, path))
    return sorted(programs)


def remove(path: Path) -> None:
    """Removes a file, ignoring errors."""
    with contextlib.suppress(OSError):
        path.unlink()


def remove_damaged(folder: Path) -> None:
    """Removes incomplete files, for example after SIGKILL during a write. JAX never overwrites them.

    Checks only files that have changed since shortly before the last check.
    """
    stamp, begin = folder / STAMP, time.time() - MARGIN
    try:
        checked = stamp.stat().st_mtime
    except OSError:
        checked = 0.0
    decompress = decompressor()
    for entry in entries(folder):
        if entry.changed < checked:
            continue
        try:
            decompress(entry.path.read_bytes())
        except Exception:  # each library raises different errors
            remove(entry.path)
    try:
        stamp.touch()
        os.utime(stamp, (begin, begin))
    except OSError:  # a full disk; the next process checks again
        return


def decompressor() -> Callable[[bytes], bytes]:
    """Returns the decompression function for the files of JAX: zstd if Python or a package provides it, else zlib."""
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
    """Removes the least recently used files until the total size is at most `limit` bytes."""
    programs = entries(folder)
    excess = sum(entry.size for entry in programs) - limit
    for entry in programs:
        if excess <= 0:
            return
        remove(entry.path)
        excess -= entry.size


class Usage(NamedTuple):
    """The number of compiled programs and their total size in bytes."""

    programs: int
    size: int


def usage() -> Usage:
    """Returns the number and the size of the cached programs, for all kinds of machine."""
    sizes = [entry.size for folder in cache_folder().glob("compiled-*") for entry in entries(folder)]
    return Usage(len(sizes), sum(sizes))


def clear() -> Usage:
    """Removes all cached programs and returns their number and size. Raises `SeqlabError` if that fails."""
    removed = usage()
    for path in cache_folder().glob("compiled-*"):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:  # another process has removed it
            continue
        except OSError as error:
            raise SeqlabError(f"{path}: cannot be removed: {error.strerror or error}") from None
    return removed
