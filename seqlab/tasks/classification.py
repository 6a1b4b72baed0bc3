"""Document classification: a text of one or more sentences to a class; judged by accuracy.

A document travels flat: the newlines between its sentences are tokens, and `sentences` tells them apart for the
models that care.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from seqlab.batching import Plan, Rows
from seqlab.config import Batching
from seqlab.errors import SeqlabError
from seqlab.tasks import bucket_plan, cross_entropy, documents
from seqlab.text import Corpus, Tokenizers
from seqlab.types import Batch, Carry, Params


@dataclass(frozen=True)
class Classification:
    max_tokens: int = 512
    """A longer document is cut."""
    label_smoothing: float = 0.0
    """Share of the target distribution that is spread over all classes."""

    KIND = "classifier"
    columns = MappingProxyType({"source": "text", "label": "class"})
    metrics = ("accuracy",)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise SeqlabError(f"task.max_tokens must be at least 1, not {self.max_tokens}")

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        batching = dataclasses.replace(batching, max_length=self.max_tokens)  # so none is left out
        return bucket_plan(self, corpus, batching, lambda: np.minimum(corpus.lengths("source"), self.max_tokens))

    def collate(self, corpus: Corpus, rows: Rows, tokenizers: Tokenizers) -> Batch:
        found = [corpus.row("source", i)[: self.max_tokens] for i in rows.indices]
        targets, weights = np.zeros(rows.rows, np.int32), np.zeros(rows.rows, np.float32)
        targets[: len(rows.indices)] = [corpus.row("label", i)[0] for i in rows.indices]
        weights[: len(rows.indices)] = 1.0
        inputs = documents(found, tokenizers["source"], rows.shape[0], rows.rows)
        return Batch(inputs, None, targets, weights)

    def loss(self, model: Any, params: Params, batch: Batch, carry: Carry, key: Any) -> Any:
        """Cross-entropy of the class; `key` drives dropout, None means evaluation: no dropout, no smoothing."""
        train = key is not None
        logits = model.apply(params, batch.inputs, train=train, rngs={"dropout": key} if train else None)
        smoothing = self.label_smoothing if train else 0.0
        return *cross_entropy(logits, batch.targets, batch.weights, smoothing), carry

    def answer(self, model: Any, params: Params, tokenizers: Tokenizers, lines: Sequence[str]) -> list[str]:
        """The class of each document."""
        tokenizer, best = tokenizers["source"], make_answer(model)
        ids = [np.array(row[: self.max_tokens], np.int32) for row in tokenizer.encode(lines)]
        answers = []
        for at in range(0, len(ids), ROWS):
            some = ids[at : at + ROWS]
            longest = max(len(row) for row in some)
            inputs = documents(some, tokenizer, 1 << max(longest - 1, 1).bit_length(), ROWS)
            answers += np.asarray(best(params, inputs))[: len(some)].tolist()
        return [tokenizers["label"].decode([i]) for i in answers]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """The most frequent class."""
        ((label, _),) = Counter(example["label"] for example in train).most_common(1)
        return "majority", [label] * len(sources)


ROWS = 64  # documents answered at once


@functools.lru_cache(maxsize=16)
def make_answer(model: Any) -> Callable[..., jax.Array]:
    """The jitted function behind every answer: (params, inputs) to the number of the class, [B]."""
    return jax.jit(lambda params, inputs: model.apply(params, inputs, train=False).argmax(-1))


TASK = Classification
