"""Direct preference optimization (Rafailov et al. 2023, equation 7), with a reference "policy"."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.data.batches import pair_batch
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.task import Task
from seqlab.decoding.requests import source_request
from seqlab.types import Generator, Loss


@struct.dataclass
class Pair:
    """A better and a worse answer to each source, as batches for a generator, and the weights of the rows."""

    better: Any
    worse: Any
    weights: Any


@dataclass(frozen=True)
class Preferences(Task):
    beta: float = 0.5

    model = Generator
    columns = MappingProxyType({"source": SentencePiece(), "target": SentencePiece(), "rejected": SentencePiece()})
    metrics = ("exact_match",)

    def plan(self, corpus, batching):
        def sizes():
            source, *answers = corpus.lengths(*self.columns).T + 1
            return np.stack([source, np.maximum(*answers)], axis=1)

        return bucket_plan(self, corpus, batching, sizes)

    def collate(self, corpus, batch_plan, codecs, draw=None):
        def batch_of(column):
            sources, targets = ([corpus.row(name, i) for i in batch_plan.indices] for name in ("source", column))
            return pair_batch(sources, targets, batch_plan, codecs)

        weights = (np.arange(batch_plan.row_count) < len(batch_plan.indices)).astype(np.float32)
        return Pair(batch_of("target"), batch_of("rejected"), weights)

    def loss(self, model, params, batch, context):
        policy = context.references["policy"]

        def margin(side):
            ours, frozen = (log_probs(*pair, side) for pair in ((model, params), (policy.model, policy.params)))
            return ours - frozen

        difference = margin(batch.better) - margin(batch.worse)
        losses = -jax.nn.log_sigmoid(self.beta * difference)
        total, correct = (losses * batch.weights).sum(), ((difference > 0) * batch.weights).sum()
        return Loss(total, batch.weights.sum(), {"correct": correct})

    def requests(self, inputs, codecs, max_length):
        return [source_request(ids, codecs, max_length or 2 * len(ids) + 10) for ids in inputs]


def log_probs(model, params, batch):
    """Returns the log-probability of each target [B], without dropout."""
    logits = model.apply(params, batch.inputs, batch.prefix, train=False, method="outputs")
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets[..., None], axis=-1)[..., 0]
    return (chosen * batch.weights).sum(axis=1)


TASK = Preferences
