"""The text codec of Marian models: the pieces of a SentencePiece model, with ids from a separate vocabulary."""

import base64
import binascii
import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqlab.codecs.codec import TextCodec
from seqlab.codecs.sentencepiece import check_model, open_processor
from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import parse_json

SPECIAL = ("pad", "bos", "eos", "unk")


@dataclass(frozen=True)
class Marian(TextCodec):
    """A SentencePiece model, the pieces by id, and the ids of the special tokens."""

    model: bytes
    pieces: tuple[str, ...]
    pad: int
    bos: int
    eos: int
    unk: int

    @functools.cached_property
    def processor(self) -> Any:
        return open_processor(self.model)

    @property
    def size(self) -> int:
        return len(self.pieces)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return self.pieces

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The id of each piece."""
        return {name: i for i, name in enumerate(self.pieces)}

    def encode(self, values: Sequence[str]) -> list[list[int]]:
        """Returns ids without BOS and EOS."""
        lines = [text.replace("\n", " ") for text in values]
        rows = self.processor.encode(lines, out_type=str, num_threads=os.cpu_count() or 1)
        return [[self.ids.get(piece, self.unk) for piece in row] for row in rows]

    def decode(self, row: Sequence[int]) -> str:
        """Returns the text of a row, ignoring special ids."""
        pieces = [self.pieces[i] for i in row if i not in (self.pad, self.bos, self.eos)]
        return self.processor.decode_pieces(pieces).replace("\u2581", " ").strip()

    def save(self) -> bytes:
        model = base64.b64encode(self.model).decode()
        return json.dumps({**dataclasses.asdict(self), "model": model}, indent=0).encode()

    @classmethod
    def load(cls, content: bytes, place: str) -> "Marian":
        fields = parse_json(content, place, dict[str, str | int | list[str]])
        try:
            model = base64.b64decode(str(fields.pop("model", "")), validate=True)
        except binascii.Error:
            raise SeqlabError(f"{place}: the model is not base64") from None
        return checked_marian(model, fields, place)


def checked_marian(model: bytes, fields: dict[str, Any], place: str) -> Marian:
    """Returns the codec of a SentencePiece model, with the pieces and special ids in `fields`. Raises `SeqlabError`,
    which names `place`, for malformed fields.
    """
    pieces = fields.get("pieces")
    if fields.keys() != {"pieces", *SPECIAL} or not isinstance(pieces, list):
        raise SeqlabError(f"{place}: the keys must be pieces, {', '.join(SPECIAL)}")
    ids = [fields[name] for name in SPECIAL]
    if not all(isinstance(i, int) and 0 <= i < len(pieces) for i in ids):
        raise SeqlabError(f"{place}: {', '.join(SPECIAL)} must be ids of its {len(pieces)} pieces")
    codec = Marian(model, tuple(pieces), *ids)
    check_model(codec, place)
    return codec


CODEC = Marian
