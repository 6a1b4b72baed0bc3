"""Regression: a sequence of numbers to one number; judged by the mean squared error."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs
from seqlab.codecs.numbers import Numbers
from seqlab.config import Batching
from seqlab.data.batches import single_values
from seqlab.data.corpus import Corpus
from seqlab.data.padding import pad
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.decoding.answers import answers
from seqlab.layers.losses import model_outputs
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Loss, Params, Regressor, Series


@dataclass(frozen=True)
class Regression:
    features: int = 1
    """Numbers at a position: the source's numbers are those of the first position, of the second, and so on."""

    model = Regressor
    columns = MappingProxyType({"source": Numbers(), "target": Numbers()})
    metrics = ("mse",)

    def __post_init__(self) -> None:
        check_minimum("task.features", self.features, 1)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        def sizes() -> np.ndarray:
            numbers = corpus.lengths("source", "target")
            source, target = numbers.T
            wrong = np.flatnonzero((source == 0) | (source % self.features != 0) | (target != 1))
            if len(wrong):
                first = wrong[0]
                raise SeqlabError(
                    f"example {first + 1} has {source[first]} numbers and {target[first]} targets; a multiple of "
                    f"task.features, {self.features}, and one are wanted"
                )
            return numbers[:, :1] // self.features

        return bucket_plan(self, corpus, batching, sizes)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs) -> Batch:
        targets, weights = np.zeros((2, batch_plan.row_count), np.float32)
        targets[: len(batch_plan.indices)] = single_values(corpus, "target", batch_plan)
        weights[: len(batch_plan.indices)] = 1.0
        sources = [self.by_position(corpus.row("source", i)) for i in batch_plan.indices]
        return Batch(self.series(sources, batch_plan.shape[0], batch_plan.row_count), None, targets, weights)

    def by_position(self, values: Any) -> np.ndarray:
        """A source's numbers [T F]."""
        values = np.asarray(values, np.float32)
        if len(values) % self.features:
            raise SeqlabError(f"a source has {len(values)} numbers, not a multiple of {self.features}")
        return values.reshape(-1, self.features)

    def series(self, sources: Sequence[np.ndarray], length: int, count: int) -> Series:
        """Padded numbers; filled up with empty rows."""
        return Series(*pad(sources, length, count, features=self.features))

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """The squared error."""
        numbers = model_outputs(model, params, batch.inputs, context.key)
        return Loss(((numbers - batch.targets) ** 2 * batch.weights).sum(), batch.weights.sum(), {})

    def answer(self, model: Any, params: Params, codecs: Codecs, inputs: Sequence[Any]) -> list[str]:
        """The number for each sequence of numbers."""
        sources = [self.by_position(values) for values in inputs]
        return [str(np.float32(value)) for value in answers(model, params, sources, self.series)]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """The mean of the training targets."""
        return "mean", [str(statistics.fmean(float(example["target"]) for example in train))] * len(sources)


TASK = Regression
VARIANTS = (Regression(features=2),)
