"""Dialogue: predicts the next turn, given the previous turns, one per line. Metrics: BLEU and chrF.

The model reads the most recent turns. In a line of `seqlab decode`, turns are separated by tabs. A hierarchical model
treats each turn as a sentence and merges the turns beyond its maximum number of sentences into the last one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from seqlab.codecs.codec import Codecs
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.batches import pair_batch
from seqlab.data.corpus import Corpus
from seqlab.data.plan_cache import cut_source_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Task, most_frequent
from seqlab.decoding.requests import source_request
from seqlab.layers.losses import generator_loss
from seqlab.search.requests import Request
from seqlab.system.checks import check_fraction, check_minimum
from seqlab.types import Batch, Context, Generator, Loss, Params

DEFAULT_LENGTH = 64  # maximum number of tokens in a reply


@dataclass(frozen=True)
class Dialogue(Task):
    source_tokens: int = 256
    """Number of most recent tokens of the previous turns that the model reads."""
    label_smoothing: float = 0.1
    """Label smoothing: share of the target probability that is spread over the vocabulary."""
    loss_chunk: int = field(default=0, repr=False)  # plans do not depend on it
    """Maximum number of positions whose logits are computed at once, to save memory; 0: all."""

    model = Generator
    columns = MappingProxyType({"source": SentencePiece(), "target": SentencePiece()})
    metrics = ("bleu", "chrf")
    separator = "\t"

    def __post_init__(self) -> None:
        check_minimum("task.loss_chunk", self.loss_chunk, 0)
        check_fraction("task.label_smoothing", self.label_smoothing)
        check_minimum("task.source_tokens", self.source_tokens, 1)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        return cut_source_plan(self, corpus, batching, self.source_tokens)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        sources, targets = ([corpus.row(column, i) for i in batch_plan.indices] for column in self.columns)
        return pair_batch([source[-self.source_tokens :] for source in sources], targets, batch_plan, codecs)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the reply; see `generator_loss`."""
        return generator_loss(model, params, batch, context, self.label_smoothing, self.loss_chunk)

    def requests(self, inputs: Sequence[Any], codecs: Codecs, max_length: int) -> list[Request]:
        limit = max_length or DEFAULT_LENGTH
        return [source_request(ids[-self.source_tokens :], codecs, limit) for ids in inputs]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """Predicts the most frequent reply."""
        return "most frequent reply", [most_frequent(train, "target")] * len(sources)


TASK = Dialogue
