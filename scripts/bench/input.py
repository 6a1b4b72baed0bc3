"""Measures the work of the host before a training step: tokenizing, batch planning and collating.

    python scripts/bench/input.py

Runs in one process. Planning and collating use random ids with the lengths of sentences (geometric, with mean 30).
"""

import functools
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from seqlab.codecs.sentencepiece import train_sentencepiece
from seqlab.config import Batching, Text
from seqlab.data.buckets import make_buckets
from seqlab.data.corpus import Corpus, encode_examples
from seqlab.data.packing import make_packing
from seqlab.data.records import prepare
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.tasks.translation import Translation

BATCHING = Batching(tokens=50_000, buckets=12)
BATCHES = 60


def lengths_of(examples: int) -> np.ndarray:
    return np.minimum(np.random.default_rng(0).geometric(1 / 30, size=(examples, 2)), BATCHING.max_length)


def tokenizing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        examples = list(prepare(CldrPhrases(train=60_000), Path(folder)).read("train"))
        tokenizer = train_sentencepiece((example["source"] for example in examples), Text(size=2000))
        begun = time.perf_counter()
        codecs, count = {"source": tokenizer, "target": tokenizer}, 4 * len(examples)
        corpus = encode_examples(iter(examples * 4), count, "bench", codecs, Path(folder))
        seconds = time.perf_counter() - begun
        tokens = sum(len(ids) for ids in corpus.values.values())
        print(f"tokenizing: {tokens / seconds / 1e6:.2f} M tokens per second on {os.cpu_count()} cores")


def planning() -> None:
    """Prints the memory of planning per example and its fixed part, from a line through two sizes."""
    for name, plan in (
        ("buckets", lambda lengths: make_buckets(lengths, BATCHING)),
        ("packing", lambda lengths: make_packing(lengths.sum(axis=1), 1024, 48)),
    ):
        peaks = []
        for examples in (1_000_000, 4_000_000):
            lengths = lengths_of(examples)
            tracemalloc.start()
            plan(lengths)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        each = (peaks[1] - peaks[0]) / 3e6
        fixed = peaks[0] / 1e6 - each
        print(f"{name}: at most {each:.0f} bytes per example in addition to its lengths, plus {fixed:.0f} MB")


def collating() -> None:
    lengths, random = lengths_of(200_000), np.random.default_rng(0)
    columns = ("source", "target")
    offsets = {c: np.concatenate([[0], np.cumsum(lengths[:, j])]) for j, c in enumerate(columns)}
    corpus = Corpus({c: random.integers(4, 8000, offsets[c][-1], np.int32) for c in columns}, offsets)
    task = Translation()
    tokenizer = train_sentencepiece(["a b c"] * 100, Text(kind="char", size=300))
    collate = functools.partial(task.collate, corpus, codecs=dict.fromkeys(columns, tokenizer))
    batches = task.plan(corpus, BATCHING).batches(0, 0)
    begun = time.perf_counter()
    made = [collate(batches[i]) for i in range(BATCHES)]
    seconds = time.perf_counter() - begun
    tokens = sum(int(batch.inputs.mask.sum() + (batch.weights > 0).sum()) for batch in made)
    print(f"making batches: {tokens / seconds / 1e6:.2f} M tokens per second, one thread")


if __name__ == "__main__":
    tokenizing()
    planning()
    collating()
