"""Padding: converts ragged rows to arrays with a mask, in training and in decoding."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from seqlab.codecs.codec import Codec, TextCodec
from seqlab.system.errors import DamagedCache, SeqlabError
from seqlab.types import Frames, Pixels, Tokens


def pad(
    rows: Sequence[Any],
    length: int,
    count: int,
    *,
    align: Literal["left", "right"] = "left",
    shape: tuple[int, ...] = (),
    dtype: Any = np.int32,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns values [count, length, *shape] and a mask, bool [count, length], for ragged rows; missing rows are
    empty.

    Raises `SeqlabError` for a row that is longer than `length`.
    """
    longest = max(map(len, rows), default=0)
    if longest > length:
        raise DamagedCache(f"a row of {longest:,} positions does not fit into {length:,} positions")
    values = np.zeros((count, length, *shape), dtype)
    mask = np.zeros((count, length), bool)
    for i, row in enumerate(rows):
        columns = slice(0, len(row)) if align == "left" else slice(length - len(row), length)
        values[i, columns] = row
        mask[i, columns] = True
    return values, mask


def pad_inputs(rows: Sequence[Any], codec: Codec, length: int, count: int) -> Tokens | Frames | Pixels:
    """Returns rows of a codec as inputs of a model: `Tokens` for ids, with sentence numbers if they are text;
    `Frames` for vectors; `Pixels` for rows of pixels. Raises `SeqlabError` for images of different sizes.
    """
    if codec.size is not None:
        return token_inputs(rows, codec, length, count)
    values, mask = pad(rows, length, count, shape=codec.shape, dtype=codec.dtype)
    if len(codec.shape) == 1:
        return Frames(values, mask)
    if any(len(row) != length for row in rows):
        sizes = ", ".join(map(str, sorted({len(row) for row in rows})))
        raise SeqlabError(f"the images of a batch must have the same number of rows, not {sizes}")
    return Pixels(values)


def token_inputs(rows: Sequence[Any], codec: Codec, length: int, count: int) -> Tokens:
    """Returns rows of ids as inputs of a model, with sentence numbers if they are text."""
    ids, mask = pad(rows, length, count)
    return Tokens(ids, mask, sentences=sentences_of(ids, codec.newline) if isinstance(codec, TextCodec) else None)


def joined_pair(first: Any, second: Any, eos: int) -> np.ndarray:
    """Returns the ids of two texts as one row, each ended by EOS."""
    return np.concatenate([first, [eos], second, [eos]]).astype(np.int32)


def pair_inputs(rows: Sequence[Any], codec: TextCodec, length: int, count: int) -> Tokens:
    """Returns rows that contain two texts, each ended by EOS, as inputs whose `types` are 1 in the second text."""
    inputs = token_inputs(rows, codec, length, count)
    types = np.minimum(sentences_of(inputs.ids, codec.eos), 1) * inputs.mask
    return dataclasses.replace(inputs, types=types.astype(np.int32))


def sentences_of(ids: np.ndarray, newline: int) -> np.ndarray:
    """Returns the sentence number of each token of a document, [... S]; a newline belongs to the sentence it ends."""
    ends = ids == newline
    return (np.cumsum(ends, axis=-1) - ends).astype(np.int32)
