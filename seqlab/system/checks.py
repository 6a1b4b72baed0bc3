"""Checks of values. Their errors name the field and its bounds."""

import dataclasses
import math
import re
import reprlib
import types
from typing import Any, get_args, get_type_hints

from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import fits


def check_types(value: Any, prefix: str = "") -> None:
    """Raises `SeqlabError` if a field of a basic type, such as `steps: int`, has a value of another type."""
    hints = get_type_hints(type(value))
    for parameter in dataclasses.fields(value):
        content, expected = getattr(value, parameter.name), hints.get(parameter.name)
        if dataclasses.is_dataclass(content) and parameter.name != "parent":
            check_types(content, f"{prefix}{parameter.name}.")
        elif is_plain(expected) and (isinstance(content, list) or not fits(content, expected)):
            raise type_error(f"{prefix}{parameter.name}", content, expected)


def type_error(name: str, value: Any, expected: Any) -> SeqlabError:
    """Returns the error about a value that does not have the `expected` type."""
    if type(value) is int and not fits(value, int) and fits(0, expected):
        return SeqlabError(f"{name} is out of range: it must fit into a signed 64-bit integer")
    kind = expected.__name__ if isinstance(expected, type) else str(expected)
    actual = type(value).__name__ if dataclasses.is_dataclass(value) else reprlib.repr(value)
    return SeqlabError(f"{name} must be of type {kind}, not {actual}")


def is_plain(kind: Any) -> bool:
    """Whether a type consists of numbers, strings and tuples of them, and None."""
    inner = [argument for argument in get_args(kind) if argument is not ...]
    return kind in (bool, int, float, str, types.NoneType) or (bool(inner) and all(map(is_plain, inner)))


def check_minimums(value: Any, prefix: str, **minimums: int) -> None:
    """Raises `SeqlabError` for the first field that is below its minimum."""
    for name, minimum in minimums.items():
        check_minimum(f"{prefix}{name}", getattr(value, name), minimum)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SeqlabError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SeqlabError(f"{name} must be at least 0 and below 1, not {value}")


def check_nonnegative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise SeqlabError(f"{name} must be a finite number of at least 0, not {value}")


def check_minimum(name: str, value: int | float, minimum: int) -> None:
    """Raises `SeqlabError` if a value is too small or NaN."""
    if not value >= minimum:  # NaN too
        raise SeqlabError(f"{name} must be at least {minimum}, not {value}")


def check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise SeqlabError(f"{name}: {pattern!r} is not a regular expression: {error}") from None
