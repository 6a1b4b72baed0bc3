"""TODO data.padding."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlab.data.corpus import Corpus
from seqlab.data.plans import Rows
from seqlab.data.tokenizers import TextTokenizer, Tokenizers
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Series, Tokens


def pad(rows: Sequence[np.ndarray], length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [count, length] and mask bool of ragged rows; filled up with empty rows. Raises `SeqlabError` for a
    row that is longer.
    """
    longest = max(map(len, rows), default=0)
    if longest > length:
        raise SeqlabError(f"a row of {longest:,} positions where there is room for {length:,}")
    ids = np.zeros((count, length), np.int32)
    mask = np.zeros((count, length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    return ids, mask


def single(corpus: Corpus, column: str, rows: Rows) -> np.ndarray:
    """The one id of each row in a column, int32."""
    found = [corpus.row(column, i) for i in rows.indices]
    if any(len(one) != 1 for one in found):
        raise SeqlabError(f"{column}.offsets: an example that has not one {column}")
    return np.concatenate([corpus.ids[column][:0], *found])


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


def pair_batch(sources: Sequence[Any], targets: Sequence[np.ndarray], rows: Rows, tokenizers: Tokenizers) -> Batch:
    """source: x1 .. xn EOS; prefix: BOS y1 .. ym; targets: y1 .. ym EOS."""
    source_length, target_length = rows.shape
    ended = [np.append(source, tokenizers["source"].eos) for source in sources]
    return Batch(
        documents(ended, tokenizers["source"], source_length, rows.rows),
        *shifted(targets, tokenizers["target"], target_length, rows.rows),
    )


def blank_batch(task: Any, rows: int = 2, length: int = 2) -> Batch:
    """Rows of ones in the structs of a task's batches: enough to build a model with, or to measure it."""
    tokens = Tokens(np.ones((rows, length), np.int32), np.ones((rows, length), bool))
    by_position, by_row = np.ones((rows, length), np.float32), np.ones(rows, np.float32)
    if task.KIND == "generator":
        return Batch(tokens if "source" in task.columns else None, tokens, tokens.ids, by_position)
    if task.KIND == "tagger":
        return Batch(tokens, None, tokens.ids, by_position)
    if task.KIND == "classifier":
        return Batch(tokens, None, by_row.astype(np.int32), by_row)
    values = np.ones((rows, length, task.features), np.float32)
    return Batch(Series(values, tokens.mask), None, by_row, by_row)
