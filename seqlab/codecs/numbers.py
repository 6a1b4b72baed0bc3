"""Numbers, apart by blanks or newlines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqlab.codecs.codec import Codec
from seqlab.system.errors import SeqlabError


@dataclass(frozen=True)
class Numbers(Codec):
    """Each number is a float32; nothing is learned."""

    @property
    def dtype(self) -> str:
        return "<f4"

    @property
    def learned(self) -> bool:
        return False

    def encode(self, values: Sequence[str]) -> list[np.ndarray]:
        """Raises `SeqlabError` for a value that is not made of finite numbers."""
        return [parse_numbers(value) for value in values]

    def decode(self, row: Sequence[float]) -> str:
        return " ".join(str(number) for number in np.asarray(row, np.float32))


def parse_numbers(value: str) -> np.ndarray:
    """Returns the numbers in a text, float32 [N]. Raises `SeqlabError` for one that is not finite."""
    try:
        numbers = np.array(value.split(), np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():
        raise SeqlabError(f"not all of these are finite numbers: {value[:40]!r}")
    return numbers.astype(np.float32)


CODEC = Numbers
