"""The checks of laws: conditions, equality to the bit, and equality within a tolerance."""

from typing import Any

import numpy as np


class LawBroken(AssertionError):
    """A law does not hold."""


def require(condition: Any, message: str) -> None:
    """Raises `LawBroken` with the message if the condition is false."""
    if not bool(condition):
        raise LawBroken(message)


def require_close(a: Any, b: Any, description: str) -> float:
    """Raises if arrays differ by more than 1e-5 of the largest entry of `b`. Returns their largest relative
    difference.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    require(a.shape == b.shape, f"{description}: shapes {a.shape} and {b.shape}")
    require(np.isfinite(a).all() and np.isfinite(b).all(), f"{description}: not finite")
    gap, scale = np.abs(a - b).max(initial=0.0), max(np.abs(b).max(initial=0.0), 1e-30)
    require(gap <= 1e-5 * scale, f"{description}: differ by {gap / scale:.2g}, relative to the largest entry")
    return float(gap / scale)


def require_equal(a: Any, b: Any, description: str) -> None:
    """Raises if arrays are not equal to the bit."""
    require(np.array_equal(np.asarray(a), np.asarray(b)), f"{description}: not the same to the bit")
