"""Symbols of a small, closed set: each word of a value becomes one id."""

from collections.abc import Sequence

from seqlab.codecs.codec import Read, as_text
from seqlab.codecs.label import ClosedSet
from seqlab.config import Text
from seqlab.system.errors import SeqlabError


class Symbols(ClosedSet):
    """The symbols that occur in the training data."""

    def fit(self, read: Read, text: Text) -> "Symbols":
        return Symbols(tuple(sorted({name for value in read(None) for name in as_text(value).split()})))

    def encode(self, values: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each value's symbols. Raises `SeqlabError` for a symbol that is not in the training
        data.
        """
        ids = {name: i for i, name in enumerate(self.names)}
        try:
            return [[ids[name] for name in value.split()] for value in values]
        except KeyError as error:
            raise SeqlabError(
                f"unknown symbol {error}: not one of the {len(ids)} symbols of the training data"
            ) from None

    def decode(self, row: Sequence[int]) -> str:
        return " ".join(self.names[i] for i in row)

    def canonical(self, value: str) -> str:
        return " ".join(value.split())


CODEC = Symbols
