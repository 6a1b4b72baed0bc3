"""The axes of kernels: how many leading ones a product sums over. Layers state them where they make the kernel."""

import contextlib
import contextvars
from collections.abc import Iterator

from flax import linen as nn

_recorded: contextvars.ContextVar[dict[str, int] | None] = contextvars.ContextVar("input_axes", default=None)


def record_input_axes(module: nn.Module, name: str, count: int) -> None:
    """States that the first `count` axes of a module's kernel are summed over."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded["/".join(("params", *module.path, name))] = count


@contextlib.contextmanager
def recording_input_axes() -> Iterator[dict[str, int]]:
    """Gives a dict that the kernels of a model that is initialized in the block are recorded in, by path."""
    recorded: dict[str, int] = {}
    token = _recorded.set(recorded)
    try:
        yield recorded
    finally:
        _recorded.reset(token)
