"""Builds batches: the arrays of a task for some rows of a corpus."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from seqlab.codecs.codec import Codec, Codecs, TextCodec
from seqlab.data.corpus import Corpus
from seqlab.data.padding import pad, pad_inputs
from seqlab.data.plans import BatchPlan
from seqlab.data.task import Draw, Task
from seqlab.layers.nesting import blank_inputs, blank_tokens
from seqlab.system.errors import DamagedCache, SeqlabError
from seqlab.types import Batch, Classifier, Generator, Tagger, Tokens

SIDES = {"inputs": "source", "prefix": "target"}  # the sides of a batch, and the columns of their codecs


@contextlib.contextmanager
def damage_explained(task: Task, corpus: Corpus) -> Iterator[None]:
    """Adds the folder of the corpus and the remedy to the error of a damaged cache."""
    try:
        yield
    except DamagedCache as error:
        raise SeqlabError(
            f"{corpus.folder}: {error}. Either the cache is damaged (remove the folder, and it will be rebuilt), or "
            f"{type(task).__name__}.plan and collate disagree"
        ) from None


def make_batch(task: Task, corpus: Corpus, codecs: Codecs, batch_plan: BatchPlan, draw: Draw = None) -> Any:
    """Returns the batch of a task for a batch plan. Raises `SeqlabError` if the cached ids or the plan are damaged,
    and names the folder of the corpus; also raises for arrays with different numbers of rows.
    """
    with damage_explained(task, corpus):
        batch = task.collate(corpus, batch_plan, codecs, draw)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    counts = {(*shape, 0)[0] for shape in shapes}
    if len(counts) != 1 or not 1 <= max(counts) <= batch_plan.row_count:
        name, rows = type(task).__name__, batch_plan.row_count
        raise SeqlabError(
            f"{name}.collate must return arrays with the same number of rows, at most {rows}, not {shapes}"
        )
    return batch


def check_fields(batch: Any, task: Task, purpose: str) -> None:
    """Raises `SeqlabError` for a batch without the fields that `purpose` ("shown", "diagnosed") needs."""
    if not all(hasattr(batch, field) for field in ("inputs", "targets", "weights")):
        raise SeqlabError(
            f"the batches of {type(task).__name__} cannot be {purpose}: they need the fields inputs, targets and "
            "weights"
        )


def sides_of(batch: Any) -> dict[str, Any]:
    """Returns the inputs and the prefix of a batch, if it has them."""
    return {name: side for name in SIDES if (side := getattr(batch, name, None)) is not None}


def check_one_tokenizer(codecs: Codecs, columns: Sequence[str]) -> None:
    """Raises `SeqlabError` if two columns, whose texts form one sequence, have different tokenizers."""
    first, second = columns
    if codecs[first] != codecs[second]:
        raise SeqlabError(f"the columns {first!r} and {second!r} need one tokenizer: set text.joint to True")


def row_targets(
    corpus: Corpus, column: str, batch_plan: BatchPlan, dtype: Any = np.int32
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the targets and the weights [B] of a batch with one target per row: the single element of the row in a
    column, with the weight 1. Both are 0 in rows that fill up the batch. Raises `SeqlabError` as `single_values`.
    """
    count = len(batch_plan.indices)
    targets, weights = np.zeros(batch_plan.row_count, dtype), np.zeros(batch_plan.row_count, np.float32)
    targets[:count], weights[:count] = single_values(corpus, column, batch_plan), 1.0
    return targets, weights


def single_values(corpus: Corpus, column: str, batch_plan: BatchPlan) -> np.ndarray:
    """Returns the single element of each row in a column. Raises `SeqlabError` unless each row has exactly one."""
    rows = [corpus.row(column, i) for i in batch_plan.indices]
    if any(len(row) != 1 for row in rows):
        raise DamagedCache(f"{column}.offsets: an example does not have exactly one {column}")
    return np.concatenate([corpus.values[column][:0], *rows])


def pair_batch(sources: Sequence[Any], targets: Sequence[np.ndarray], batch_plan: BatchPlan, codecs: Codecs) -> Batch:
    """Returns a batch with sources x1 .. xn, followed by EOS if they are text, prefixes BOS y1 .. ym, and targets
    y1 .. ym EOS.
    """
    source_length, target_length = batch_plan.shape
    ended = [with_end(source, codecs["source"]) for source in sources]
    return Batch(
        pad_inputs(ended, codecs["source"], source_length, batch_plan.row_count),
        *shift_targets(targets, codecs["target"], target_length, batch_plan.row_count),
    )


def shift_targets(
    examples: Sequence[np.ndarray], tokenizer: TextCodec, length: int, count: int
) -> tuple[Tokens, np.ndarray, np.ndarray]:
    """Returns (prefix, targets, weights) for target ids: the prefix is BOS y1 .. ym, the targets are y1 .. ym EOS."""
    targets = [np.append(example, tokenizer.eos) for example in examples]
    prefixes = [np.append(tokenizer.bos, example) for example in examples]
    ids, mask = pad(targets, length, count)
    return Tokens(*pad(prefixes, length, count)), ids, mask.astype(np.float32)


def with_end(row: Any, codec: Codec) -> Any:
    """Returns the row of a source in the form that models read: text ends with EOS."""
    return np.append(row, codec.eos) if isinstance(codec, TextCodec) else row


def blank_batch(model: Any, rows: int = 2, length: int = 2, task: Task | None = None) -> Any:
    """Returns a training batch of zeros, sufficient to measure a model that a task trains."""
    blank = None if task is None else task.blank(model, rows, length)
    if blank is not None:
        return blank
    inputs, tokens = blank_inputs(model, rows, length), blank_tokens(rows, length)
    by_position, by_row = np.ones((rows, length), np.float32), np.ones(rows, np.float32)
    if isinstance(model, Generator):
        return Batch(inputs, tokens, tokens.ids, by_position)
    if isinstance(model, Tagger):
        return Batch(inputs, None, tokens.ids, by_position)
    return Batch(inputs, None, by_row.astype(np.int32) if isinstance(model, Classifier) else by_row, by_row)
