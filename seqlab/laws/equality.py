"""The checks of laws: conditions, bitwise equality, and equality within a tolerance."""

from typing import Any

import numpy as np


class LawBroken(AssertionError):
    """Raised when a law does not hold."""


def require(condition: Any, message: str) -> None:
    """Raises `LawBroken` with the message if the condition is false."""
    if not bool(condition):
        raise LawBroken(message)


def require_close(a: Any, b: Any, description: str) -> float:
    """Raises `LawBroken` if arrays differ by more than 1e-5 of the largest entry of `b`. Returns their largest
    relative difference.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    require(a.shape == b.shape, f"{description}: shapes {a.shape} and {b.shape}")
    require(np.isfinite(a).all() and np.isfinite(b).all(), f"{description}: not finite")
    gap, scale = np.abs(a - b).max(initial=0.0), max(np.abs(b).max(initial=0.0), 1e-30)
    require(gap <= 1e-5 * scale, f"{description}: the difference is {gap / scale:.2g} of the largest entry")
    return float(gap / scale)


def require_equal(a: Any, b: Any, description: str) -> None:
    """Raises `LawBroken` unless arrays are bitwise equal."""
    require(np.array_equal(np.asarray(a), np.asarray(b)), f"{description}: not bitwise equal")
