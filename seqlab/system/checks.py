"""Checks of values. Their errors name the field and its bounds."""

import dataclasses
import math
import re
from typing import Any, get_type_hints

from seqlab.system.errors import SeqlabError


def check_types(value: Any, prefix: str = "") -> None:
    """Raises `SeqlabError` if a field of a basic type, such as `steps: int`, has a value of another type."""
    hints = get_type_hints(type(value))
    for parameter in dataclasses.fields(value):
        content, expected = getattr(value, parameter.name), hints.get(parameter.name)
        if dataclasses.is_dataclass(content) and parameter.name != "parent":
            check_types(content, f"{prefix}{parameter.name}.")
        elif expected in (int, float, str, bool):
            fits = isinstance(content, (int, float) if expected is float else expected)
            if not fits or (isinstance(content, bool) and expected is not bool):
                raise SeqlabError(f"{prefix}{parameter.name} must be of type {expected.__name__}, not {content!r}")


def check_minimums(value: Any, prefix: str, **minimums: int) -> None:
    """Raises `SeqlabError` for the first field that is below its minimum."""
    for name, minimum in minimums.items():
        check_minimum(f"{prefix}{name}", getattr(value, name), minimum)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SeqlabError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SeqlabError(f"{name} must be in [0, 1), not {value}")


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
        raise SeqlabError(f"{name} must be a regular expression, not {pattern!r}: {error}") from None
