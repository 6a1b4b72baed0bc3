"""Tagging: a class for every symbol of a sequence; judged by cross-entropy and by the share that is right."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from seqlab.batching import Plan, Rows, pad
from seqlab.config import Batching
from seqlab.errors import SeqlabError
from seqlab.tasks import bucket_plan, cross_entropy
from seqlab.text import Corpus, Tokenizers
from seqlab.types import Batch, Carry, Params, Tokens

ROWS = 64  # sequences answered at once


@dataclass(frozen=True)
class Tagging:
    KIND = "tagger"
    columns = MappingProxyType({"source": "symbols", "label": "symbols"})
    metrics = ("exact_match",)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        def sizes() -> np.ndarray:
            found = corpus.lengths("source", "label")
            wrong = np.flatnonzero(found[:, 0] != found[:, 1])
            if len(wrong):
                symbols, labels = found[wrong[0]]
                raise SeqlabError(f"example {wrong[0] + 1} has {symbols} symbols and {labels} labels")
            return found[:, :1]

        return bucket_plan(self, corpus, batching, sizes)

    def collate(self, corpus: Corpus, rows: Rows, tokenizers: Tokenizers) -> Batch:
        sources, labels = ([corpus.row(column, i) for i in rows.indices] for column in self.columns)
        targets, mask = pad(labels, rows.shape[0], rows.rows)
        return Batch(Tokens(*pad(sources, rows.shape[0], rows.rows)), None, targets, mask.astype(np.float32))

    def loss(self, model: Any, params: Params, batch: Batch, carry: Carry, key: Any) -> Any:
        """Cross-entropy of every label."""
        rngs = None if key is None else {"dropout": key}
        logits = model.apply(params, batch.inputs, train=key is not None, rngs=rngs)
        return *cross_entropy(logits, batch.targets, batch.weights), None

    def answer(self, model: Any, params: Params, tokenizers: Tokenizers, lines: Sequence[str]) -> list[str]:
        """The labels of each sequence."""
        sources, answers = [np.array(row, np.int32) for row in tokenizers["source"].encode(lines)], []
        for at in range(0, len(sources), ROWS):
            some = sources[at : at + ROWS]
            longest = max(len(source) for source in some)
            inputs = Tokens(*pad(some, 1 << max(longest - 1, 1).bit_length(), ROWS))
            found = np.asarray(make_answer(model)(params, inputs))
            answers += [row[: len(source)].tolist() for row, source in zip(found, some, strict=False)]
        return [tokenizers["label"].decode(row) for row in answers]


@functools.lru_cache(maxsize=16)
def make_answer(model: Any) -> Callable[..., jax.Array]:
    """The jitted function behind every answer: (params, inputs) to classes, [B S]."""
    return jax.jit(lambda params, inputs: model.apply(params, inputs, train=False).argmax(-1))


TASK = Tagging
