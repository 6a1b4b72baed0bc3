"""The axes of parameters. Layers declare them where they make a parameter; `distributed/sharding.py` says which axis
of a mesh each lies on.

    inputs, outputs    what a product sums over, and what it gives
    heads, hidden      parts of a layer that can be computed apart
    vocabulary, width  of a table of vectors
    None               stays whole
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flax import linen as nn

Names = tuple[str | None, ...]


class Axes(NamedTuple):
    """The names of a parameter's axes, and how many leading ones a product sums over."""

    names: Names
    input_count: int = 1


AxesByPath = Mapping[str, Axes]  # by the path below "params", such as "encoder/stack_0/self_attention/query/kernel"
_recorded: contextvars.ContextVar[dict[str, Axes] | None] = contextvars.ContextVar("axes", default=None)


def declare_axes(module: nn.Module, name: str, names: Names, input_count: int = 1) -> None:
    """Declares the axes of a module's parameter."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded["/".join((*module.path, name))] = Axes(names, input_count)


@contextlib.contextmanager
def recording_axes() -> Iterator[dict[str, Axes]]:
    """Gives a dict in which the axes of a model that is initialized in the block are recorded, by path."""
    recorded: dict[str, Axes] = {}
    token = _recorded.set(recorded)
    try:
        yield recorded
    finally:
        _recorded.reset(token)
