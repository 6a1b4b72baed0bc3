"""Images of one size: bytes of rows of gray pixels."""

from dataclasses import dataclass

import numpy as np

from seqlab.codecs.codec import Codec
from seqlab.system.errors import SeqlabError


@dataclass(frozen=True)
class Image(Codec):
    """An element is a row of pixels [columns 1]; equal images are stored once."""

    columns: int = 8

    dtype = "u1"
    learned = False
    stores_once = True

    @property
    def shape(self):
        return (self.columns, 1)

    def check(self, fitted):
        if fitted != self:
            raise SeqlabError(f"expected the codec {self}, not {fitted}")

    def encode(self, values):
        return [np.frombuffer(value, np.uint8).reshape(-1, *self.shape) for value in values]

    def save(self):
        return str(self.columns).encode()

    @classmethod
    def load(cls, content, place):
        if not content.isdigit() or len(content) > 4:
            raise SeqlabError(f"{place}: expected the number of columns")
        return cls(int(content))


CODEC = Image
