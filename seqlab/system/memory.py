"""The memory allocator of the process."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Asks glibc's allocator to keep what is freed; does nothing on other systems.

    XLA on CPU takes and returns hundreds of megabytes in every step. By default they go back to the kernel
    each time, and mapping and clearing them anew takes a good part of the step (docs/benchmarks.md). To be
    called before JAX starts its threads, which would bring their own arenas.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # their names in malloc.h
        mallopt(arena_max, 1)
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)
        mallopt(top_pad, 1 << 26)
