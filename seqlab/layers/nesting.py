"""Modules in the fields of modules, such as the encoder of a head and its reader. A field may also be a tuple of
modules; its elements have paths such as "readers_0", as in the parameter tree.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from seqlab.types import Inputs, Reader, Tokens


def modules_in(module: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the module (with the path "") and all modules in its fields, each with its path ("encoder.reader")."""
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
    """Returns the module after changing it and all nested modules: `change(module, path)` returns the new fields."""

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
    """Returns the readers of a model by path."""
    return {path: module for path, module in modules_in(model) if isinstance(module, Reader)}


def with_fields(module: Any, **fields: Any) -> Any:
    """Returns the module with the given fields changed, in it and in all nested modules that have them."""
    return changed_modules(
        module, lambda module, _: {name: value for name, value in fields.items() if name in field_names(module)}
    )


def has_field(module: Any, name: str) -> bool:
    """Returns whether the module, or a nested module, has a field of this name."""
    return any(name in field_names(inner) for _, inner in modules_in(module))


def blank_tokens(rows: int, length: int) -> Tokens:
    """Returns tokens with id 0, without padding."""
    return Tokens(np.zeros((rows, length), np.int32), np.ones((rows, length), bool))


def blank_inputs(model: Any, rows: int = 2, length: int = 2) -> Inputs:
    """Returns inputs of zeros for a model: the inputs of its reader, a tuple for several readers, None for none."""
    return join_inputs([reader.blank(rows, length) for reader in readers_of(model).values()])


def join_inputs(inputs: list[Any]) -> Inputs:
    """Returns the inputs of a model, given the inputs of each of its readers."""
    return inputs[0] if len(inputs) == 1 else tuple(inputs) or None
