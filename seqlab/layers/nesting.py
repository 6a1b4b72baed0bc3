"""Modules in the fields of modules: the encoder of a head, and its reader. (Not those in tuples.)"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from seqlab.types import Inputs, Reader, Tokens


def modules_in(module: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the module and all modules in its fields, each with its path, such as "encoder.reader" ("": itself)."""
    yield path, module
    for name, value in inner_modules(module).items():
        yield from modules_in(value, f"{path}.{name}" if path else name)


def inner_modules(module: Any) -> dict[str, nn.Module]:
    """Returns the modules in a module's fields, by name."""
    return {name: value for name in field_names(module) if isinstance(value := getattr(module, name), nn.Module)}


def field_names(module: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]


def readers_of(model: Any) -> dict[str, Any]:
    """Returns the readers of a model by their paths."""
    return {path: module for path, module in modules_in(model) if isinstance(module, Reader)}


def with_fields(module: Any, **fields: Any) -> Any:
    """Returns the module with some fields changed, in it and in all modules within it that have them."""
    own = {name: value for name, value in fields.items() if name in field_names(module)}
    inner = {name: with_fields(value, **fields) for name, value in inner_modules(module).items()}
    return module.clone(**own, **inner)


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
