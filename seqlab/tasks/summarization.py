"""Summarization: predicts a summary, given a document with one sentence per line. Metric: ROUGE.

Long documents are truncated. In a line of `seqlab decode`, the sentences of a document are separated by tabs.
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

DEFAULT_LENGTH = 128  # maximum number of tokens in a summary


@dataclass(frozen=True)
class Summarization(Task):
    source_tokens: int = 400
    """Maximum number of tokens of a document; longer documents are truncated."""
    keep: str = "head"
    """Part of a long document to keep: head, tail, or ends (half of each)."""
    label_smoothing: float = 0.1
    """Label smoothing: share of the target probability that is spread over the vocabulary."""

    rouge: str = "rouge"
    """Metric: rouge or rouge_stemmed for English text, rouge_unicode for other languages."""
    loss_chunk: int = field(default=0, repr=False)  # plans do not depend on it
    """Maximum number of positions whose logits are computed at once, to save memory; 0: all."""

    model = Generator
    columns = MappingProxyType({"source": SentencePiece(), "target": SentencePiece()})
    separator = "\t"

    def __post_init__(self) -> None:
        check_minimum("task.loss_chunk", self.loss_chunk, 0)
        check_fraction("task.label_smoothing", self.label_smoothing)
        if self.rouge not in ("rouge", "rouge_stemmed", "rouge_unicode"):
            raise SeqlabError(f"task.rouge must be rouge, rouge_stemmed or rouge_unicode, not {self.rouge!r}")
        if self.keep not in ("head", "tail", "ends"):
            raise SeqlabError(f"task.keep must be head, tail or ends, not {self.keep!r}")
        check_minimum("task.source_tokens", self.source_tokens, 2)

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
        """Returns the cross-entropy of the summary; see `generator_loss`."""
        return generator_loss(model, params, batch, context, self.label_smoothing, self.loss_chunk)

    def requests(self, inputs: Sequence[Any], codecs: Codecs, max_length: int) -> list[Request]:
        limit = max_length or DEFAULT_LENGTH
        return [source_request(self.cut(ids), codecs, limit) for ids in inputs]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """Predicts the first sentence, truncated to the mean number of words in a summary."""
        lengths = [len(example["target"].split()) for example in itertools.islice(train, 10_000)]
        mean = round(sum(lengths) / max(len(lengths), 1))
        firsts = (re.split(r"(?<=[.!?])\s|\n", source.strip(), maxsplit=1)[0] for source in sources)
        return "first sentence", [" ".join(first.split()[:mean]) for first in firsts]


TASK = Summarization
