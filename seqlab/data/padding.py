"""The padding of a batch: ragged rows of ids become arrays with a mask, in training and in decoding alike."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from seqlab.system.errors import SeqlabError


def pad(
    rows: Sequence[Any],
    length: int,
    count: int,
    *,
    align: Literal["left", "right"] = "left",
    features: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [count, length] and mask bool [count, length] of ragged rows, filled up with empty rows. With
    `features`, rows are numbers [length, features], and the first result is float32 [count, length, features].

    Raises `SeqlabError` for a row that is longer than `length`.
    """
    longest = max(map(len, rows), default=0)
    if longest > length:
        raise SeqlabError(f"a row of {longest:,} positions where there is room for {length:,}")
    shape = (count, length) if features is None else (count, length, features)
    values = np.zeros(shape, np.int32 if features is None else np.float32)
    mask = np.zeros((count, length), bool)
    for i, row in enumerate(rows):
        columns = slice(0, len(row)) if align == "left" else slice(length - len(row), length)
        values[i, columns] = row
        mask[i, columns] = True
    return values, mask
