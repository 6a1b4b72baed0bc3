"""Summarization: a document, a sentence a line, to a short text; judged by ROUGE. A document that is too long is cut.

A line of `seqlab decode` is a document, its sentences apart by tabs.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.batches import pair_batch
from seqlab.data.corpus import Corpus
from seqlab.data.plan_cache import cut_source_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Task
from seqlab.decoding.requests import source_request
from seqlab.layers.losses import generator_loss
from seqlab.search.requests import Request
from seqlab.system.checks import check_fraction, check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Generator, Loss, Params

DEFAULT_LENGTH = 128  # maximum tokens of a summary


@dataclass(frozen=True)
class Summarization(Task):
    source_tokens: int = 400
    """Tokens of a document that are read."""
    keep: str = "head"
    """Which part of a longer document: head, tail, or ends, half of each."""
    label_smoothing: float = 0.1
    """Share of the target distribution that is spread over the whole vocabulary."""

    rouge: str = "rouge"
    """The metric: rouge, or of text that is not English rouge_unicode, or rouge_stemmed."""
    loss_chunk: int = field(default=0, repr=False)  # a plan does not depend on it
    """Positions whose logits are held at once, as many of each row and one at least; 0: all."""

    model = Generator
    columns = MappingProxyType({"source": SentencePiece(), "target": SentencePiece()})
    separator = "\t"

    def __post_init__(self) -> None:
        check_minimum("task.loss_chunk", self.loss_chunk, 0)
        check_fraction("task.label_smoothing", self.label_smoothing)
        if self.rouge not in ("rouge", "rouge_stemmed", "rouge_unicode"):
            raise SeqlabError(f"task.rouge must be rouge, rouge_stemmed or rouge_unicode, not {self.rouge!r}")
        if self.keep not in ("head", "tail", "ends") or self.source_tokens < 2:
            raise SeqlabError(
                f"task.keep must be head, tail or ends and task.source_tokens 2 or more, not {self.keep!r} and "
                f"{self.source_tokens}"
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.rouge,)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        return cut_source_plan(self, corpus, batching, self.source_tokens)

    def cut(self, ids: Any) -> Any:
        size = self.source_tokens
        if len(ids) <= size:
            return ids
        if self.keep == "ends":
            return np.concatenate([ids[: size - size // 2], ids[-(size // 2) :]])
        return ids[:size] if self.keep == "head" else ids[-size:]

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        sources, targets = ([corpus.row(column, i) for i in batch_plan.indices] for column in self.columns)
        return pair_batch([self.cut(source) for source in sources], targets, batch_plan, codecs)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Cross-entropy of the summary; see `generator_loss`."""
        return generator_loss(model, params, batch, context, self.label_smoothing, self.loss_chunk)

    def requests(self, inputs: Sequence[Any], codecs: Codecs, max_length: int) -> list[Request]:
        limit = max_length or DEFAULT_LENGTH
        return [source_request(self.cut(ids), codecs, limit) for ids in inputs]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """The first sentence, cut to the mean length of a summary in words."""
        lengths = [len(example["target"].split()) for example in itertools.islice(train, 10_000)]
        mean = round(sum(lengths) / max(len(lengths), 1))
        firsts = (re.split(r"(?<=[.!?])\s|\n", source.strip(), maxsplit=1)[0] for source in sources)
        return "first sentence", [" ".join(first.split()[:mean]) for first in firsts]


TASK = Summarization
