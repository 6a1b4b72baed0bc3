"""The padding of a batch: ragged rows of ids become arrays with a mask, in training and in decoding alike."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from seqlab.data.tokenizers import TextTokenizer
from seqlab.system.errors import SeqlabError
from seqlab.types import Tokens


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


def shifted(
    examples: Sequence[np.ndarray], tokenizer: TextTokenizer, length: int, count: int
) -> tuple[Tokens, np.ndarray, np.ndarray]:
    """(prefix, targets, weights) of target ids: the prefix is BOS y1 .. ym, the targets y1 .. ym EOS."""
    targets = [np.append(example, tokenizer.eos) for example in examples]
    prefixes = [np.append(tokenizer.bos, example) for example in examples]
    ids, mask = pad(targets, length, count)
    return Tokens(*pad(prefixes, length, count)), ids, mask.astype(np.float32)


def sentences_of(ids: np.ndarray, newline: int) -> np.ndarray:
    """Which sentence each token of a document is of, [... S]; a newline counts to the sentence it ends."""
    ends = ids == newline
    return (np.cumsum(ends, axis=-1) - ends).astype(np.int32)


def documents(ids: Sequence[np.ndarray], tokenizer: TextTokenizer, length: int, count: int) -> Tokens:
    """Padded documents with the sentences of their tokens; filled up with empty rows."""
    padded, mask = pad(ids, length, count)
    return Tokens(padded, mask, sentences=sentences_of(padded, tokenizer.newline))
