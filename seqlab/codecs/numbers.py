"""Numbers, separated by spaces or newlines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqlab.codecs.codec import Codec
from seqlab.system.errors import SeqlabError


@dataclass(frozen=True)
class Numbers(Codec):
    """Each number is a float32; nothing is learned."""

    features: int = 0
    """Numbers of an element: the first ones of a value are its first element. 0: elements are single numbers."""

    def check(self, fitted: Codec) -> None:
        if fitted != self:
            raise SeqlabError(f"a codec {fitted} in place of {self}")

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
        """Raises `SeqlabError` for a value that is not made of finite numbers."""
        rows = [parse_numbers(value) for value in values]
        for value, row in zip(values, rows, strict=True):
            if self.features and len(row) % self.features:
                raise SeqlabError(f"{len(row)} numbers are not a multiple of {self.features}: {value[:40]!r}")
        return [row.reshape(-1, *self.shape) for row in rows]

    def decode(self, row: Sequence[float]) -> str:
        return " ".join(str(number) for number in np.asarray(row, np.float32).flat)

    def save(self) -> bytes:
        return str(self.features).encode()

    @classmethod
    def load(cls, content: bytes, place: str) -> "Numbers":
        if not content.isdigit() or len(content) > 9:
            raise SeqlabError(f"{place}: not the number of features")
        return cls(int(content))


def parse_numbers(value: str) -> np.ndarray:
    """Returns the numbers in a text, float32 [N]. Raises `SeqlabError` for one that is not finite."""
    try:
        numbers = np.array(value.split(), np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():
        raise SeqlabError(f"expected finite numbers in the range of float32, not {value[:40]!r}")
    return numbers.astype(np.float32)


CODEC = Numbers
