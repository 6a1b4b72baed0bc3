"""The axes of parameters. Layers declare them where they create a parameter; `distributed/sharding.py` maps each to
an axis of the mesh.

    inputs, outputs    axes that a product sums over, and axes of its result
    heads, hidden      parts of a layer that can be computed independently
    vocabulary, width  axes of an embedding table
    None               an axis that is not split
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flax import linen as nn

Names = tuple[str | None, ...]


class Axes(NamedTuple):
    """The names of a parameter's axes, and the number of leading axes that a product sums over."""

    names: Names
    input_count: int = 1


AxesByPath = Mapping[str, Axes]  # by the path below "params", such as "encoder/stack_0/self_attention/query/kernel"
_recorded: contextvars.ContextVar[dict[str, Axes] | None] = contextvars.ContextVar("axes", default=None)


def declare_axes(module: nn.Module, name: str, names: Names, input_count: int = 1) -> None:
    """Declares the axes of a parameter of a module."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded["/".join((*module.path, name))] = Axes(names, input_count)


@contextlib.contextmanager
def recording_axes() -> Iterator[dict[str, Axes]]:
    """Yields a dict that records, by path, the axes of a model that is initialized in the block."""
    recorded: dict[str, Axes] = {}
    token = _recorded.set(recorded)
    try:
        yield recorded
    finally:
        _recorded.reset(token)
