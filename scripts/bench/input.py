"""What the host does before a training step: texts to ids, lengths to a plan of batches, ids to a batch.

    python scripts/bench/input.py

One process; the ids of the last two are random, with lengths as of sentences (geometric, 30 on the average).
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
        print(f"tokenizing: {tokens / seconds / 1e6:.2f} M tokens a second on {os.cpu_count()} cores")


def planning() -> None:
    """The least squares of two sizes are a line: what is held for each example, and once."""
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
        print(f"{name}: at most {each:.0f} bytes an example beside its lengths, and {peaks[0] / 1e6 - each:.0f} MB")


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
    print(f"making batches: {tokens / seconds / 1e6:.2f} M tokens a second, one thread")


if __name__ == "__main__":
    tokenizing()
    planning()
    collating()
