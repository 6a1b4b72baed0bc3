"""Modules in the fields of modules: the encoder of a head, and its reader. A tuple of modules is a field too: its
elements have paths such as "readers_0", as in the tree of parameters.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from seqlab.types import Inputs, Reader, Tokens


def modules_in(module: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the module and all modules in its fields, each with its path, such as "encoder.reader" ("": itself)."""
    yield path, module
    for name in field_names(module):
        yield from _modules_in_value(getattr(module, name), f"{path}.{name}" if path else name)


def _modules_in_value(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, nn.Module):
        yield from modules_in(value, path)
    elif isinstance(value, tuple):
        for i, element in enumerate(value):
            yield from _modules_in_value(element, f"{path}_{i}")


def changed_modules(module: Any, change: Callable[[Any, str], dict[str, Any]], path: str = "") -> Any:
    """Returns the module with the fields that `change(module, path)` gives, in it and in all modules within it."""

    def changed(value: Any, path: str) -> Any:
        if isinstance(value, nn.Module):
            return changed_modules(value, change, path)
        if isinstance(value, tuple):
            return tuple(changed(element, f"{path}_{i}") for i, element in enumerate(value))
        return value

    inner = {name: changed(getattr(module, name), f"{path}.{name}" if path else name) for name in field_names(module)}
    return module.clone(**inner | change(module, path))


def field_names(module: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]


def readers_of(model: Any) -> dict[str, Any]:
    """Returns the readers of a model by their paths."""
    return {path: module for path, module in modules_in(model) if isinstance(module, Reader)}


def with_fields(module: Any, **fields: Any) -> Any:
    """Returns the module with some fields changed, in it and in all modules within it that have them."""
    return changed_modules(
        module, lambda module, _: {name: value for name, value in fields.items() if name in field_names(module)}
    )


def has_field(module: Any, name: str) -> bool:
    """Whether the module, or one within it, has a field of this name."""
    return any(name in field_names(inner) for _, inner in modules_in(module))


def blank_tokens(rows: int, length: int) -> Tokens:
    """Returns tokens of id 0, all real."""
    return Tokens(np.zeros((rows, length), np.int32), np.ones((rows, length), bool))


def blank_inputs(model: Any, rows: int = 2, length: int = 2) -> Inputs:
    """Returns inputs of zeros for a model: those of its reader, a tuple if it has several, or None."""
    return join_inputs([reader.blank(rows, length) for reader in readers_of(model).values()])


def join_inputs(inputs: list[Any]) -> Inputs:
    """Returns the inputs of a model, given those of each of its readers."""
    return inputs[0] if len(inputs) == 1 else tuple(inputs) or None
