"""Translation: predicts a target sentence, given a source sentence. Metrics: BLEU, chrF, TER and exact match."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from seqlab.codecs.codec import Codecs
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.batches import pair_batch
from seqlab.data.corpus import Corpus
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Task
from seqlab.decoding.requests import source_request
from seqlab.layers.losses import generator_loss
from seqlab.search.requests import Request
from seqlab.system.checks import check_fraction, check_minimum
from seqlab.types import Batch, Context, Generator, Loss, Params


@dataclass(frozen=True)
class Translation(Task):
    label_smoothing: float = 0.1
    """Label smoothing: share of the target probability that is spread over the vocabulary."""
    tokenized: bool = False
    """Compute BLEU without tokenization, for text that is already tokenized."""
    loss_chunk: int = field(default=0, repr=False)  # plans do not depend on it
    """Maximum number of positions whose logits are computed at once, to save memory; 0: all."""

    model = Generator
    columns = MappingProxyType({"source": SentencePiece(), "target": SentencePiece()})

    def __post_init__(self) -> None:
        check_minimum("task.loss_chunk", self.loss_chunk, 0)
        check_fraction("task.label_smoothing", self.label_smoothing)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("tokenized_bleu" if self.tokenized else "bleu", "chrf", "ter", "exact_match")

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        """Returns buckets. Both sides need one position more than their ids, for EOS, or for BOS in the prefix."""
        return bucket_plan(self, corpus, batching, lambda: corpus.lengths(*self.columns) + 1)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        sources, targets = ([corpus.row(column, i) for i in batch_plan.indices] for column in self.columns)
        return pair_batch(sources, targets, batch_plan, codecs)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the target; see `generator_loss`."""
        return generator_loss(model, params, batch, context, self.label_smoothing, self.loss_chunk)

    def requests(self, inputs: Sequence[Any], codecs: Codecs, max_length: int) -> list[Request]:
        """Returns requests. By default, a translation has at most 2 n + 10 tokens for a source of n tokens."""
        return [source_request(ids, codecs, max_length or 2 * len(ids) + 10) for ids in inputs]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """Predicts a copy of the source."""
        return "copied source", list(sources)


TASK = Translation
