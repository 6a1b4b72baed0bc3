"""The interface of codecs, which convert the values of a column to arrays and back.

A codec is a frozen dataclass in a separate file. A task has an unfitted codec for each of its columns. `fit` returns
the codec that training uses, and a run stores the bytes that `save` returns.
"""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from seqlab.config import Text
from seqlab.system.errors import SeqlabError

Value = str | bytes  # the value of a column in an example
Read = Callable[[int | None], Iterator[Value]]  # yields the values of at most N training examples, evenly spaced
BLANK, END = "\u2581", "</s>"  # the pieces for a blank and for the end of a text


class Codec(abc.ABC):
    """The base class of codecs. `encode` converts each value to a row of elements, an array [N *shape] of `dtype`."""

    version: ClassVar[int] = 1
    """Version of `fit` and `encode`. Increment it when they change, so that cached arrays are rebuilt."""

    @property
    def dtype(self) -> str:
        """The NumPy data type of an element in the corpus."""
        return "<i4"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an element."""
        return ()

    @property
    def size(self) -> int | None:
        """The number of ids, which are 0 to size - 1; None if elements are not ids."""
        return None

    @property
    def stores_once(self) -> bool:
        """Whether the corpus stores equal values only once, for large values that several examples share."""
        return False

    @property
    def learned(self) -> bool:
        """Whether `fit` reads the training data."""
        return True

    def shared(self, text: Text) -> bool:
        """Returns whether all columns of a task with this codec share one fitted codec."""
        return False

    def fit(self, read: Read, text: Text) -> Self:
        """Returns the codec fitted to the values that `read` yields."""
        return self

    def check(self, fitted: "Codec") -> None:
        """Raises `SeqlabError` if a fitted codec cannot replace this unfitted one."""
        if type(fitted) is not type(self):
            raise SeqlabError(f"expected a codec {type(self).__name__}, not {type(fitted).__name__}")

    @abc.abstractmethod
    def encode(self, values: Sequence[Any]) -> list[Any]:
        """Returns a row for each value. Raises `SeqlabError` for a value that cannot be encoded."""

    def decode(self, row: Sequence[Any]) -> str:
        """Returns the text of a row."""
        raise SeqlabError(f"{type(self).__name__} cannot decode text")

    def canonical(self, value: str) -> str:
        """Returns the value in the form that `decode` returns, for comparison with decoded text."""
        return value

    def save(self) -> bytes:
        """Returns the content of the file that a run stores."""
        if fields := dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            raise NotImplementedError(f"{type(self).__name__} has the field {fields[0].name}: define save and load")
        return b""

    @classmethod
    def load(cls, content: bytes, place: str) -> Self:
        """Returns the codec whose `save` returned `content`. Raises `SeqlabError`, which names `place`, for malformed
        content.
        """
        return cls()

    @property
    def digest(self) -> str:
        """Identifies the codec: codecs with equal digests return equal rows."""
        name = f"{type(self).__module__}.{type(self).__qualname__} {self.version} "
        return hashlib.sha256(name.encode() + content_of(self)).hexdigest()


class TextCodec(Codec):
    """A codec for text that a generator reads and writes, with the ids of the special tokens."""

    pad: int
    bos: int
    eos: int
    unk: int

    @functools.cached_property
    def newline(self) -> int:
        """The id that separates the lines of a text; -1 if the codec does not distinguish lines."""
        return -1

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The tokens by id, with "\u2581" for a preceding blank."""
        raise NotImplementedError

    @functools.cached_property
    def begins_word(self) -> np.ndarray:
        """Whether each token begins a word: bool, by id."""
        return np.array([name.startswith(BLANK) for name in self.names])

    def check(self, fitted: Codec) -> None:
        """Accepts any text codec, since an imported run has its own tokenizer. Raises `SeqlabError` for others."""
        if not isinstance(fitted, TextCodec):
            raise SeqlabError(f"{type(fitted).__name__} is not a text codec")


Codecs = dict[str, Any]  # by column of the data ("source", "target", "label")


def as_text(value: Value) -> str:
    """Returns the value, which must be text. Raises `SeqlabError` for bytes."""
    if isinstance(value, bytes):
        raise SeqlabError("this codec reads text, but the column contains bytes")
    return value


def encode_values(values: Sequence[Value], codec: Codec) -> list[Any]:
    """Returns a row for each value. Raises `SeqlabError` unless the codec returns a list with one row per value."""
    rows: Any = codec.encode(values)
    if not isinstance(rows, list | tuple) or not all(isinstance(row, list | tuple | np.ndarray) for row in rows):
        raise SeqlabError(f"{type(codec).__name__}.encode must return a list of rows; each row is a list or an array")
    if len(rows) != len(values):
        raise SeqlabError(
            f"{type(codec).__name__}.encode must return one row for each of {len(values)} values, not {len(rows)}"
        )
    return [*rows]


def as_row(row: Any, codec: Codec) -> np.ndarray:
    """Returns a row of a codec as an array [N *shape] of the codec's dtype. Raises `SeqlabError` if the elements do
    not fit the codec's dtype, shape or size.
    """
    name = f"{type(codec).__name__}.encode"
    try:
        given = np.asarray(row, None if len(row) else codec.dtype)
        array = given.astype(codec.dtype, copy=False)
    except (TypeError, ValueError, OverflowError):
        raise SeqlabError(f"{name} must return rows that are arrays of {codec.dtype}") from None
    exact = given.dtype == array.dtype or (given.dtype.kind in "biu" and np.array_equal(given, array))
    if array.dtype.kind in "biu" and not exact:
        raise SeqlabError(f"{name} returns {given.dtype} elements, not {codec.dtype}")
    if array.shape[1:] != codec.shape:
        if array.size:
            raise SeqlabError(f"{name} returns elements of shape {array.shape[1:]}, not {codec.shape}")
        array = array.reshape(0, *codec.shape)
    if codec.size is not None and array.dtype.kind not in "iu":
        raise SeqlabError(
            f"{type(codec).__name__} has a size, so its dtype must be an integer type, not {codec.dtype}"
        )
    if codec.size is not None and array.size and not (array.min() >= 0 and array.max() < codec.size):
        raise SeqlabError(
            f"{name} returns ids from {array.min()} to {array.max()}, but a codec of size {codec.size} allows only 0 "
            f"to {codec.size - 1}"
        )
    return array


def content_of(codec: Codec) -> bytes:
    """Returns the content of a codec's file. Raises `SeqlabError` if its `save` does not return bytes."""
    content: Any = codec.save()
    if not isinstance(content, bytes):
        raise SeqlabError(f"{type(codec).__name__}.save must return bytes, not {type(content).__name__}")
    return content
