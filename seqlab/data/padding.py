"""The padding of a batch: ragged rows of ids become arrays with a mask, in training and in decoding alike."""

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
    """Values [count, length, *shape] and mask bool [count, length] of ragged rows, filled up with empty rows.

    Raises `SeqlabError` for a row that is longer than `length`.
    """
    longest = max(map(len, rows), default=0)
    if longest > length:
        raise DamagedCache(f"a row of {longest:,} positions where there is room for {length:,}")
    values = np.zeros((count, length, *shape), dtype)
    mask = np.zeros((count, length), bool)
    for i, row in enumerate(rows):
        columns = slice(0, len(row)) if align == "left" else slice(length - len(row), length)
        values[i, columns] = row
        mask[i, columns] = True
    return values, mask


def pad_inputs(rows: Sequence[Any], codec: Codec, length: int, count: int) -> Tokens | Frames | Pixels:
    """Rows of a codec as the inputs of a model: `Tokens` of ids, with their sentences if they are text; `Frames` of
    vectors; `Pixels` of rows of pixels. Raises `SeqlabError` for images of several sizes.
    """
    if codec.size is not None:
        ids, mask = pad(rows, length, count)
        sentences = sentences_of(ids, codec.newline) if isinstance(codec, TextCodec) else None
        return Tokens(ids, mask, sentences=sentences)
    values, mask = pad(rows, length, count, shape=codec.shape, dtype=codec.dtype)
    if len(codec.shape) == 1:
        return Frames(values, mask)
    if any(len(row) != length for row in rows):
        sizes = ", ".join(map(str, sorted({len(row) for row in rows})))
        raise SeqlabError(f"the images of a batch must have as many rows, not {sizes}")
    return Pixels(values)


def sentences_of(ids: np.ndarray, newline: int) -> np.ndarray:
    """Which sentence each token of a document is of, [... S]; a newline counts to the sentence it ends."""
    ends = ids == newline
    return (np.cumsum(ends, axis=-1) - ends).astype(np.int32)
