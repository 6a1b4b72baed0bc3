"""The memory allocator of the process."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Makes the allocator of glibc keep freed memory. Does nothing on other systems.

    XLA on CPU allocates and frees hundreds of megabytes in every step. By default they are returned to the kernel
    each time, and mapping and clearing them again takes much of the step (docs/benchmarks.md). Must be called before
    JAX starts its threads, which would otherwise create their own arenas.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # the constants M_... of malloc.h
        mallopt(arena_max, 1)
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)
        mallopt(top_pad, 1 << 26)
