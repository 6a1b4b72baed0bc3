"""Language modeling in both directions, to pre-train encoders (Peters et al. 2018). Metric: perplexity.

The next and the previous token of each position are predicted. Texts have no special tokens at their ends.
"""

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.corpus import Corpus
from seqlab.data.padding import token_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Task
from seqlab.layers.losses import cross_entropy, model_outputs
from seqlab.layers.nesting import blank_inputs
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Loss, Params, Tagger


@dataclass(frozen=True)
class BidirectionalModeling(Task):
    max_tokens: int = 128
    """Maximum number of tokens of a text; longer texts are truncated."""

    model = Tagger
    columns = MappingProxyType({"source": SentencePiece()})

    def __post_init__(self) -> None:
        check_minimum("task.max_tokens", self.max_tokens, 2)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        batching = dataclasses.replace(batching, max_length=self.max_tokens)  # so that no text is left out
        return bucket_plan(self, corpus, batching, lambda: np.minimum(corpus.lengths("source"), self.max_tokens))

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        """Returns a batch with the next tokens and then the previous tokens of a row as its targets [B 2T]."""
        rows = [corpus.row("source", i)[: self.max_tokens] for i in batch_plan.indices]
        inputs = token_inputs(rows, codecs["source"], batch_plan.shape[0], batch_plan.row_count)
        ids, pairs = inputs.ids, inputs.mask[:, :-1] & inputs.mask[:, 1:]
        targets = np.concatenate(
            [np.pad(ids[:, 1:], ((0, 0), (0, 1))), np.pad(ids[:, :-1], ((0, 0), (1, 0)))], axis=1
        )
        weights = np.concatenate([np.pad(pairs, ((0, 0), (0, 1))), np.pad(pairs, ((0, 0), (1, 0)))], axis=1)
        return Batch(inputs, None, targets * weights, weights.astype(np.float32))

    def blank(self, model: Any, rows: int, length: int) -> Batch:
        targets = np.zeros((rows, 2 * length), np.int32)
        return Batch(blank_inputs(model, rows, length), None, targets, targets + np.float32(1))

    def places(self, batch: Batch) -> np.ndarray:
        positions = np.broadcast_to(np.arange(batch.inputs.mask.shape[1]), batch.inputs.mask.shape)
        return np.concatenate([positions, positions], axis=1)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the next and the previous tokens."""
        logits = model_outputs(model, params, batch.inputs, context.key)
        if logits.shape[:2] != batch.targets.shape:
            raise SeqlabError(
                f"{type(model).__name__} predicts a single token at each position, but this task needs the next and "
                "the previous one: use BidirectionalLM"
            )
        return Loss(*cross_entropy(logits, batch.targets, batch.weights))


TASK = BidirectionalModeling
