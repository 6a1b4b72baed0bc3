"""Regression: predicts a number, given a sequence of numbers. Metric: mean squared error."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codec, Codecs
from seqlab.codecs.numbers import Numbers
from seqlab.config import Batching
from seqlab.data.batches import row_targets
from seqlab.data.corpus import Corpus
from seqlab.data.padding import pad_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Prediction, Task
from seqlab.decoding.outputs import outputs_of
from seqlab.decoding.trained import TrainedModel
from seqlab.layers.losses import model_outputs
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Loss, Params, Regressor


@dataclass(frozen=True)
class Regression(Task):
    features: int = 1
    """Number of features at each position; consecutive numbers of the source form a position."""

    model = Regressor
    metrics = ("mse",)

    def __post_init__(self) -> None:
        check_minimum("task.features", self.features, 1)

    @property
    def columns(self) -> dict[str, Codec]:
        return {"source": Numbers(self.features), "target": Numbers()}

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        def sizes() -> np.ndarray:
            lengths = corpus.lengths("source", "target")
            source, target = lengths.T
            wrong = np.flatnonzero((source == 0) | (target != 1))
            if len(wrong):
                first = wrong[0]
                raise SeqlabError(
                    f"example {first + 1} must have at least one position and exactly one target, not "
                    f"{source[first]} positions and {target[first]} targets"
                )
            return lengths[:, :1]

        return bucket_plan(self, corpus, batching, sizes)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        targets, weights = row_targets(corpus, "target", batch_plan, np.float32)
        sources = [corpus.row("source", i) for i in batch_plan.indices]
        inputs = pad_inputs(sources, codecs["source"], batch_plan.shape[0], batch_plan.row_count)
        return Batch(inputs, None, targets, weights)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the squared error."""
        numbers = model_outputs(model, params, batch.inputs, context.key)
        return Loss(((numbers - batch.targets) ** 2 * batch.weights).sum(), batch.weights.sum(), {})

    def predict(self, trained: TrainedModel, examples: Mapping[str, Sequence[Any]]) -> list[list[Prediction]]:
        """Returns the predicted number for each sequence."""
        numbers = outputs_of(trained, examples["source"])
        return [[Prediction(str(np.float32(number)), details={"value": float(number)})] for number in numbers]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """Predicts the mean of the training targets."""
        return "mean", [str(statistics.fmean(float(example["target"]) for example in train))] * len(sources)


TASK = Regression
VARIANTS = (Regression(features=2),)
