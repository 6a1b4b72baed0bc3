"""Tagging: predicts a label for each symbol of a sequence. Metrics: cross-entropy and exact match."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs
from seqlab.codecs.symbols import Symbols
from seqlab.config import Batching
from seqlab.data.corpus import Corpus
from seqlab.data.padding import pad, pad_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Prediction, Task
from seqlab.decoding.outputs import predict_tags
from seqlab.decoding.trained import TrainedModel
from seqlab.layers.losses import tagger_loss
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Loss, Params, Tagger


@dataclass(frozen=True)
class Tagging(Task):
    model = Tagger
    columns = MappingProxyType({"source": Symbols(), "label": Symbols()})
    metrics = ("exact_match",)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        def sizes() -> np.ndarray:
            lengths = corpus.lengths("source", "label")
            malformed = np.flatnonzero(lengths[:, 0] != lengths[:, 1])
            if len(malformed):
                symbols, labels = lengths[malformed[0]]
                raise SeqlabError(
                    f"example {malformed[0] + 1} has {symbols} symbols but {labels} labels: each symbol needs one "
                    "label"
                )
            return lengths[:, :1]

        return bucket_plan(self, corpus, batching, sizes)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        sources, labels = ([corpus.row(column, i) for i in batch_plan.indices] for column in self.columns)
        targets, mask = pad(labels, batch_plan.shape[0], batch_plan.row_count)
        inputs = pad_inputs(sources, codecs["source"], batch_plan.shape[0], batch_plan.row_count)
        return Batch(inputs, None, targets, mask.astype(np.float32))

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the labels."""
        return tagger_loss(model, params, batch, context)

    def predict(self, trained: TrainedModel, examples: Mapping[str, Sequence[Any]]) -> list[list[Prediction]]:
        """Returns the most likely label of each symbol."""
        return predict_tags(trained, examples["source"], lambda source: slice(len(source)))


TASK = Tagging
