"""Tokenizers: text, classes, symbols or numbers to ids and back."""

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqlab.system.errors import SeqlabError

BLANK, END = "\u2581", "</s>"  # a blank and the end of a text, as pieces


@dataclass(frozen=True)
class Tokenizer:
    """A SentencePiece model and its special ids."""

    model: bytes
    pad = 0
    bos = 1
    eos = 2
    unk = 3

    @functools.cached_property
    def processor(self) -> Any:
        import sentencepiece

        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError:
            raise SeqlabError("not a SentencePiece model") from None
        special_ids = processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()
        if processor.piece_to_id("<0x0A>") == self.unk:
            raise SeqlabError("this SentencePiece model has no byte fallback, which is needed")
        if special_ids != (self.pad, self.bos, self.eos, self.unk):
            raise SeqlabError(
                f"this SentencePiece model has pad, bos, eos, unk at {special_ids}; 0, 1, 2, 3 are needed"
            )
        return processor

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def __len__(self) -> int:
        return self.processor.get_piece_size()

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(map(self.processor.id_to_piece, range(len(self))))

    @functools.cached_property
    def newline(self) -> int:
        """The id between the lines of a text: the byte of a newline."""
        return self.processor.piece_to_id("<0x0A>")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns ids without BOS and EOS, on all cores. Each line of a text is encoded by itself."""
        parts = [text.split("\n") for text in texts]
        lines = [line for part in parts for line in part]
        rows = iter(self.processor.encode(lines, num_threads=os.cpu_count() or 1))
        encoded = []
        for part in parts:
            ids = next(rows)
            for _ in part[1:]:
                ids.append(self.newline)
                ids.extend(next(rows))
            encoded.append(ids)
        return encoded

    def piece(self, token: int) -> str:
        """Returns a token as the tokenizer writes it, "\u2581" for a blank before it."""
        return self.processor.id_to_piece(int(token))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids without the special ones. An id outside the vocabulary is an error."""
        lines: list[list[int]] = [[]]
        for i in ids:
            if i == self.newline:
                lines.append([])
            elif i not in (self.pad, self.bos, self.eos):
                lines[-1].append(i)
        # A word missing from a vocabulary of words keeps SentencePiece's mark for a blank.
        return "\n".join(
            text.removeprefix("\u2581").replace("\u2581", " ") for text in self.processor.decode(lines)
        ).strip()


@dataclass(frozen=True)
class MarianTokenizer:
    """Marian's tokenizer: a SentencePiece model with its own special ids, and piece ids from another vocabulary."""

    model: bytes
    names: tuple[str, ...]
    pad: int
    bos: int
    eos: int
    unk: int
    newline = -1  # lines of a text are not distinguished

    @functools.cached_property
    def processor(self) -> Any:
        import sentencepiece

        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError:
            raise SeqlabError("not a SentencePiece model") from None

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.model + "\n".join(self.names).encode()).hexdigest()

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without BOS and EOS."""
        lines = [text.replace("\n", " ") for text in texts]
        rows = self.processor.encode(lines, out_type=str, num_threads=os.cpu_count() or 1)
        return [[self.numbers.get(piece, self.unk) for piece in row] for row in rows]

    def piece(self, token: int) -> str:
        return self.names[token]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; the special ones are left out."""
        pieces = [self.names[i] for i in ids if i not in (self.pad, self.bos, self.eos)]
        return self.processor.decode_pieces(pieces).replace("\u2581", " ").strip()


@dataclass(frozen=True)
class Labels:
    """The classes of a data set, by name: a tokenizer whose every text is one id."""

    names: tuple[str, ...]

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Raises `SeqlabError` for a label that the training data does not have."""
        ids = {name: i for i, name in enumerate(self.names)}
        unknown = next((text for text in texts if text not in ids), None)
        if unknown is not None:
            raise SeqlabError(f"the label {unknown!r} is none of the {len(ids)} that training knows")
        return [[ids[text]] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return self.names[ids[0]]


@dataclass(frozen=True)
class Symbols:
    """Words of a small, closed set, by name: a tokenizer that gives each word of a text one id."""

    names: tuple[str, ...]

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(" ".join(self.names).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Raises `SeqlabError` for a symbol that the training data does not have."""
        ids = {name: i for i, name in enumerate(self.names)}
        try:
            return [[ids[name] for name in text.split()] for text in texts]
        except KeyError as error:
            raise SeqlabError(f"the symbol {error} is none of the {len(ids)} that training knows") from None

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.names[i] for i in ids)


@dataclass(frozen=True)
class Numbers:
    """Numbers, apart by blanks or newlines: an id is the bit pattern of a float32."""

    digest = "float32"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Raises `SeqlabError` for a text that is not made of finite numbers."""
        encoded = []
        for text in texts:
            try:
                values = np.array(text.split(), np.float64)
            except ValueError:
                values = np.array([np.nan])
            if not (np.abs(values) < np.finfo(np.float32).max).all():
                raise SeqlabError(f"these are no numbers: {text[:40]!r}")
            encoded.append(values.astype(np.float32).view(np.int32).tolist())
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(value) for value in values_of(ids))


def values_of(ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """The float32 numbers behind ids of `Numbers`."""
    return np.asarray(ids, np.int32).view(np.float32)


TextTokenizer = Tokenizer | MarianTokenizer
Tokenizers = dict[str, Any]  # by column of the data ("source", "target", "label"): one of those above
