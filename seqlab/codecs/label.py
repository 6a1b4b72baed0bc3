"""Class labels: each value is the name of a class and becomes one id."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from seqlab.codecs.codec import Codec, Read, as_text
from seqlab.config import Text
from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import parse_json


@dataclass(frozen=True)
class ClosedSet(Codec):
    """The names that occur in the training data. The id of a name is its index; the file is a JSON list of names."""

    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return len(self.names)

    def save(self) -> bytes:
        return json.dumps(self.names, indent=0).encode()

    @classmethod
    def load(cls, content: bytes, place: str) -> Self:
        names = parse_json(content, place, list[str])
        if not names or len(set(names)) < len(names):
            raise SeqlabError(f"{place}: expected a list of one or more distinct names")
        return cls(tuple(names))


class Label(ClosedSet):
    """The classes that occur in the training data."""

    def fit(self, read: Read, text: Text) -> "Label":
        return Label(tuple(sorted({as_text(value) for value in read(None)})))

    def encode(self, values: Sequence[str]) -> list[list[int]]:
        """Returns the id of each label. Raises `SeqlabError` for a label that is not in the training data."""
        ids = {name: i for i, name in enumerate(self.names)}
        unknown = next((value for value in values if value not in ids), None)
        if unknown is not None:
            raise SeqlabError(
                f"unknown label {unknown!r}: it is not one of the {len(ids)} labels of the training data"
            )
        return [[ids[value]] for value in values]

    def decode(self, row: Sequence[int]) -> str:
        return self.names[row[0]]


CODEC = Label
