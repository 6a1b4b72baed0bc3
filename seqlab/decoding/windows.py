"""Windows of a stream: the lines that are read before they are decoded."""

import itertools
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

WINDOW = 10_000  # lines read ahead and sorted by length


def windows_of(rows: Iterable[Any], pause: float | None, size: int) -> Iterator[list[Any]]:
    """Yields the rows of a stream in windows of `size`. With a `pause`, a window also ends when no row arrives for
    this many seconds, so that a pipe gets answers while it is open.
    """
    if pause is None:
        remaining = iter(rows)
        while window := list(itertools.islice(remaining, size)):
            yield window
        return
    arriving: queue.Queue[tuple[bool, Any]] = queue.Queue(size)  # (True, row), or (False, error) at the end

    def read() -> None:
        try:
            for row in rows:
                arriving.put((True, row))
        except BaseException as error:  # raised by the consumer, after the rows before it
            arriving.put((False, error))
        else:
            arriving.put((False, None))

    threading.Thread(target=read, daemon=True).start()
    is_row, value = arriving.get()
    while is_row:
        window = []
        while is_row and len(window) < size:
            window.append(value)
            try:
                is_row, value = arriving.get(timeout=pause)
            except queue.Empty:
                yield window
                window = []
                is_row, value = arriving.get()
        if window:
            yield window
    if value is not None:
        raise value
