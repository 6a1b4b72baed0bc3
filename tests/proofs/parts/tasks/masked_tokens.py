"""Masked-token prediction. Different tokens are masked in each epoch, and always the same tokens in evaluation."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.data.padding import pad, pad_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.task import Task
from seqlab.layers.losses import cross_entropy, model_outputs
from seqlab.types import Batch, Loss, Tagger

TEXT = SentencePiece(reserved=("[MASK]",))


@dataclass(frozen=True)
class MaskedTokens(Task):
    share: float = 0.15
    """Share of tokens to mask; at least one token per example is masked."""

    model = Tagger
    columns = MappingProxyType({"source": TEXT})

    def plan(self, corpus, batching):
        return bucket_plan(self, corpus, batching, lambda: corpus.lengths("source"))

    def collate(self, corpus, batch_plan, codecs, draw=None):
        mask_id = TEXT.reserved_id("[MASK]", codecs["source"])
        length, count = batch_plan.shape[0], batch_plan.row_count
        rows = [corpus.row("source", i) for i in batch_plan.indices]
        hidden = [self.hidden(len(row), index, draw) for row, index in zip(rows, batch_plan.indices, strict=True)]
        masked = [np.where(places, mask_id, row) for row, places in zip(rows, hidden, strict=True)]
        weights, _ = pad(hidden, length, count, dtype=np.float32)
        inputs = pad_inputs(masked, codecs["source"], length, count)
        return Batch(inputs, None, pad(rows, length, count)[0], weights)

    def hidden(self, length, index, draw):
        """Returns which tokens are masked: a pure function of the seed, the epoch and the example."""
        random = np.random.default_rng([*(draw or ()), int(index)])
        places = random.random(length) < self.share
        places[random.integers(length)] = True
        return places

    def loss(self, model, params, batch, context):
        logits = model_outputs(model, params, batch.inputs, context.key)
        return Loss(*cross_entropy(logits, batch.targets, batch.weights))


TASK = MaskedTokens
