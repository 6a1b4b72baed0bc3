"""TODO laws.equality."""

from typing import Any

import numpy as np


class LawBroken(AssertionError):
    """A law does not hold."""


def require(holds: Any, message: str) -> None:
    if not bool(holds):
        raise LawBroken(message)


def close(a: Any, b: Any, what: str) -> float:
    """Their largest difference, relative to the largest entry of `b`."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    require(a.shape == b.shape, f"{what}: shapes {a.shape} and {b.shape}")
    require(np.isfinite(a).all() and np.isfinite(b).all(), f"{what}: not finite")
    gap, scale = np.abs(a - b).max(initial=0.0), max(np.abs(b).max(initial=0.0), 1e-30)
    require(gap <= 1e-5 * scale, f"{what}: differ by {gap / scale:.2g}, relative to the largest entry")
    return float(gap / scale)


def same(a: Any, b: Any, what: str) -> None:
    require(np.array_equal(np.asarray(a), np.asarray(b)), f"{what}: not the same to the bit")
