"""A codec for numbers that are separated by spaces or newlines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqlab.codecs.codec import Codec
from seqlab.system.errors import SeqlabError


@dataclass(frozen=True)
class Numbers(Codec):
    """Parses float32 numbers; nothing is learned."""

    features: int = 0
    """Number of consecutive numbers that form an element. 0: elements are single numbers."""

    def check(self, fitted: Codec) -> None:
        if fitted != self:
            raise SeqlabError(f"expected the codec {self}, not {fitted}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.features,) if self.features else ()

    @property
    def dtype(self) -> str:
        return "<f4"

    @property
    def learned(self) -> bool:
        return False

    def encode(self, values: Sequence[str]) -> list[np.ndarray]:
        """Returns the numbers of each value. Raises `SeqlabError` unless a value consists of finite numbers."""
        rows = [parse_numbers(value) for value in values]
        for value, row in zip(values, rows, strict=True):
            if self.features and len(row) % self.features:
                raise SeqlabError(
                    f"expected a multiple of {self.features} numbers, not {len(row)} numbers: {value[:40]!r}"
                )
        return [row.reshape(-1, *self.shape) for row in rows]

    def decode(self, row: Sequence[float]) -> str:
        return " ".join(str(number) for number in np.asarray(row, np.float32).flat)

    def save(self) -> bytes:
        return str(self.features).encode()

    @classmethod
    def load(cls, content: bytes, place: str) -> "Numbers":
        if not content.isdigit() or len(content) > 9:
            raise SeqlabError(f"{place}: expected the number of features")
        return cls(int(content))


def parse_numbers(value: str) -> np.ndarray:
    """Returns the numbers in a text, float32 [N]. Raises `SeqlabError` unless all are finite numbers."""
    try:
        numbers = np.array(value.split(), np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():
        raise SeqlabError(f"expected finite numbers in the range of float32, not {value[:40]!r}")
    return numbers.astype(np.float32)


CODEC = Numbers
