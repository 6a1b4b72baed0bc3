"""Document classification: predicts the class of a text of one or more sentences. Metrics: accuracy and macro-F1.

A document is one flat sequence: the newlines between sentences are tokens, and `sentences` numbers the sentences for
models that use them.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqlab.codecs.codec import Codecs
from seqlab.codecs.label import Label
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.batches import row_targets
from seqlab.data.corpus import Corpus
from seqlab.data.padding import pad_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Prediction, Task, most_frequent
from seqlab.decoding.outputs import outputs_of, ranked_classes
from seqlab.decoding.trained import TrainedModel
from seqlab.layers.losses import cross_entropy, model_outputs
from seqlab.layers.mixup import draw_mixture
from seqlab.system.checks import check_fraction, check_minimum, check_nonnegative
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Classifier, Context, Inputs, Loss, MixingClassifier, Params


@dataclass(frozen=True)
class Classification(Task):
    max_tokens: int = 512
    """Maximum number of tokens of a document; longer documents are truncated."""
    label_smoothing: float = 0.0
    """Label smoothing: share of the target probability that is spread over all classes."""
    mixup: float = 0.0
    """Parameter alpha of Beta(alpha, alpha), the distribution of a document's share in its mixture with another
    document of the batch, in training. Summaries are mixed (Verma et al. 2019; Guo et al. 2019); 0: no mixtures."""

    model = Classifier
    columns = MappingProxyType({"source": SentencePiece(), "label": Label()})
    metrics = ("accuracy", "macro_f1")
    separator = "\t"

    def __post_init__(self) -> None:
        check_minimum("task.max_tokens", self.max_tokens, 1)
        check_fraction("task.label_smoothing", self.label_smoothing)
        check_nonnegative("task.mixup", self.mixup)

    @property
    def whole_batch(self) -> bool:
        return self.mixup > 0

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        batching = dataclasses.replace(batching, max_length=self.max_tokens)  # so that no document is left out
        return bucket_plan(self, corpus, batching, lambda: np.minimum(corpus.lengths("source"), self.max_tokens))

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        sources = [corpus.row("source", i)[: self.max_tokens] for i in batch_plan.indices]
        targets, weights = row_targets(corpus, "label", batch_plan)
        inputs = pad_inputs(sources, codecs["source"], batch_plan.shape[0], batch_plan.row_count)
        return Batch(inputs, None, targets, weights)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the classes, without label smoothing and mixtures in evaluation."""
        smoothing = 0.0 if context.key is None else self.label_smoothing
        if context.key is not None and self.mixup:
            return self.mixture_loss(model, params, batch, context.key)
        logits = model_outputs(model, params, batch.inputs, context.key)
        return Loss(*cross_entropy(logits, batch.targets, batch.weights, smoothing))

    def mixture_loss(self, model: Any, params: Params, batch: Batch, key: jax.Array) -> Loss:
        """Returns the cross-entropy of mixtures, whose targets are mixtures of the classes of both documents. Raises
        `SeqlabError` for a model that cannot classify mixtures.
        """
        if not isinstance(model, MixingClassifier):
            raise SeqlabError(
                f"task.mixup needs a model with classify_mixtures, such as ClassifierHead, not {type(model).__name__}"
            )
        partners, share = draw_mixture(key, batch.weights, self.mixup)
        module: Any = model
        logits = module.apply(
            params, batch.inputs, partners, share, train=True, rngs={"dropout": key}, method="classify_mixtures"
        )
        sides = (batch.targets, share), (batch.targets[partners], 1 - share)
        losses = [
            cross_entropy(logits, targets, part * batch.weights, self.label_smoothing) for targets, part in sides
        ]
        return Loss(*jax.tree.map(jnp.add, *losses))

    def predict(self, trained: TrainedModel, examples: Mapping[str, Sequence[Any]]) -> list[list[Prediction]]:
        """Returns all classes of each document with their probabilities, most likely first."""
        names = trained.codecs["label"].names
        return [ranked_classes(logits, names) for logits in outputs_of(trained, self.cut(examples["source"]))]

    def read(self, codecs: Codecs, inputs: Sequence[Any]) -> Inputs:
        """Returns the inputs of the model, given the ids of documents."""
        ids = self.cut(inputs)
        return pad_inputs(ids, codecs["source"], 1 << (max(map(len, ids)) - 1).bit_length(), len(ids))

    def cut(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        return [np.array(ids[: self.max_tokens], np.int32) for ids in inputs]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """Predicts the most frequent class."""
        return "majority", [most_frequent(train, "label")] * len(sources)


TASK = Classification
