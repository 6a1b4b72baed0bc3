"""From examples to arrays: the batch of a task for some rows of a corpus."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs, TextCodec
from seqlab.data.corpus import Corpus
from seqlab.data.padding import pad
from seqlab.data.plans import BatchPlan
from seqlab.data.task import Task
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Classifier, Generator, Series, Tagger, Tokens


def make_batch(task: Task, corpus: Corpus, codecs: Codecs, batch_plan: BatchPlan) -> Batch:
    """The task's batch of some rows. Raises `SeqlabError` naming the corpus's folder, where ids and plan are cached,
    if they do not make a batch.
    """
    try:
        return task.collate(corpus, batch_plan, codecs)
    except SeqlabError as error:
        raise SeqlabError(f"{corpus.folder}: damaged ({error}); remove it, and it is made again") from None


def single_values(corpus: Corpus, column: str, batch_plan: BatchPlan) -> np.ndarray:
    """The one element of each row in a column. Raises `SeqlabError` for a row that has not exactly one."""
    rows = [corpus.row(column, i) for i in batch_plan.indices]
    if any(len(row) != 1 for row in rows):
        raise SeqlabError(f"{column}.offsets: an example without exactly one {column}")
    return np.concatenate([corpus.values[column][:0], *rows])


def pair_batch(sources: Sequence[Any], targets: Sequence[np.ndarray], batch_plan: BatchPlan, codecs: Codecs) -> Batch:
    """source: x1 .. xn EOS; prefix: BOS y1 .. ym; targets: y1 .. ym EOS."""
    source_length, target_length = batch_plan.shape
    ended = [np.append(source, codecs["source"].eos) for source in sources]
    return Batch(
        pad_documents(ended, codecs["source"], source_length, batch_plan.row_count),
        *shift_targets(targets, codecs["target"], target_length, batch_plan.row_count),
    )


def shift_targets(
    examples: Sequence[np.ndarray], tokenizer: TextCodec, length: int, count: int
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


def pad_documents(ids: Sequence[np.ndarray], tokenizer: TextCodec, length: int, count: int) -> Tokens:
    """Padded documents with the sentences of their tokens; filled up with empty rows."""
    padded, mask = pad(ids, length, count)
    return Tokens(padded, mask, sentences=sentences_of(padded, tokenizer.newline))


def blank_batch(task: Any, rows: int = 2, length: int = 2) -> Batch:
    """Rows of ones in the structs of a task's batches: enough to build a model with, or to measure it."""
    tokens = Tokens(np.ones((rows, length), np.int32), np.ones((rows, length), bool))
    by_position, by_row = np.ones((rows, length), np.float32), np.ones(rows, np.float32)
    if task.model is Generator:
        return Batch(tokens if "source" in task.columns else None, tokens, tokens.ids, by_position)
    if task.model is Tagger:
        return Batch(tokens, None, tokens.ids, by_position)
    if task.model is Classifier:
        return Batch(tokens, None, by_row.astype(np.int32), by_row)
    values = np.ones((rows, length, task.features), np.float32)
    return Batch(Series(values, tokens.mask), None, by_row, by_row)
