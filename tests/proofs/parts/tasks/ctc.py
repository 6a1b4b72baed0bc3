"""Transcription by connectionist temporal classification (Graves et al. 2006): from frames to unaligned symbols."""

from dataclasses import dataclass

import numpy as np
import optax

from seqlab.codecs.numbers import Numbers
from seqlab.codecs.symbols import Symbols
from seqlab.data.padding import pad, pad_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.task import Prediction, Task
from seqlab.decoding.outputs import outputs_of
from seqlab.types import Batch, Loss, Tagger

BLANK = 0  # the class of a position without a symbol; symbol i is class i + 1


@dataclass(frozen=True)
class CTC(Task):
    features: int = 4

    model = Tagger
    metrics = ("exact_match",)

    @property
    def columns(self):
        return {"source": Numbers(self.features), "target": Symbols()}

    def plan(self, corpus, batching):
        return bucket_plan(self, corpus, batching, lambda: corpus.lengths("source", "target"))

    def collate(self, corpus, batch_plan, codecs, draw=None):
        (length, size), count = batch_plan.shape, batch_plan.row_count
        sources, targets = ([corpus.row(column, i) for i in batch_plan.indices] for column in self.columns)
        inputs = pad_inputs(sources, codecs["source"], length, count)
        ids, mask = pad([target + 1 for target in targets], size, count)
        return Batch(inputs, None, ids, mask.astype(np.float32))

    def loss(self, model, params, batch, context):
        rngs = None if context.key is None else {"dropout": context.key}
        logits, mask = model.apply(params, batch.inputs, train=context.key is not None, rngs=rngs, method="tag")
        losses = optax.ctc_loss(logits, 1.0 - mask, batch.targets, 1.0 - batch.weights, blank_id=BLANK)
        real = batch.weights.any(axis=1)
        return Loss((losses * real).sum(), real.sum().astype(losses.dtype), {})

    def predict(self, trained, examples):
        """Returns the most likely class of each position, without repetitions and blanks."""
        codec, predictions = trained.codecs["target"], []
        for logits in outputs_of(trained, examples["source"]):
            best = logits.argmax(-1) * (logits != 0).any(-1)  # a position that is not real says nothing
            times = [i for i, k in enumerate(best) if k != BLANK and (i == 0 or k != best[i - 1])]
            text = codec.decode([int(best[i]) - 1 for i in times])
            predictions.append([Prediction(text, details={"times": times})])
        return predictions


TASK = CTC
