"""Classification of pairs of texts, such as entailment: predicts the class of a pair. Metrics: accuracy and macro-F1.

Both texts form one sequence, each ended by EOS; `types` mark the second one (Devlin et al. 2019).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs
from seqlab.codecs.label import Label
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.batches import check_one_tokenizer, row_targets
from seqlab.data.corpus import Corpus
from seqlab.data.padding import joined_pair, pair_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Prediction, Task, most_frequent
from seqlab.decoding.outputs import outputs_of, ranked_classes
from seqlab.decoding.trained import TrainedModel
from seqlab.layers.losses import cross_entropy, model_outputs
from seqlab.system.checks import check_minimum
from seqlab.types import Batch, Classifier, Context, Loss, Params


@dataclass(frozen=True)
class PairClassification(Task):
    max_tokens: int = 128
    """Maximum number of tokens of each text; longer texts are truncated."""

    model = Classifier
    columns = MappingProxyType({"source": SentencePiece(), "second": SentencePiece(), "label": Label()})
    metrics = ("accuracy", "macro_f1")

    def __post_init__(self) -> None:
        check_minimum("task.max_tokens", self.max_tokens, 1)

    @property
    def input_columns(self) -> tuple[str, ...]:
        return ("source", "second")

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        batching = dataclasses.replace(batching, max_length=2 * self.max_tokens + 2)  # no pair is left out

        def sizes() -> np.ndarray:
            return np.minimum(corpus.lengths("source", "second"), self.max_tokens).sum(1, keepdims=True) + 2

        return bucket_plan(self, corpus, batching, sizes)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        """Returns a batch with one class per pair. Raises `SeqlabError` if both texts of the pairs, which form one
        sequence, have different tokenizers.
        """
        check_one_tokenizer(codecs, self.input_columns)
        targets, weights = row_targets(corpus, "label", batch_plan)
        first, second = ([corpus.row(column, i) for i in batch_plan.indices] for column in self.input_columns)
        rows = self.joined(first, second, codecs["source"].eos)
        inputs = pair_inputs(rows, codecs["source"], batch_plan.shape[0], batch_plan.row_count)
        return Batch(inputs, None, targets, weights)

    def joined(self, first: Sequence[Any], second: Sequence[Any], eos: int) -> list[np.ndarray]:
        """Returns the two texts of each pair as one sequence."""
        limit = self.max_tokens
        return [joined_pair(a[:limit], b[:limit], eos) for a, b in zip(first, second, strict=True)]

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the classes."""
        logits = model_outputs(model, params, batch.inputs, context.key)
        return Loss(*cross_entropy(logits, batch.targets, batch.weights))

    def predict(self, trained: TrainedModel, examples: Mapping[str, Sequence[Any]]) -> list[list[Prediction]]:
        """Returns all classes of each pair with their probabilities, most likely first."""
        rows = self.joined(examples["source"], examples["second"], trained.codecs["source"].eos)
        names = trained.codecs["label"].names
        return [ranked_classes(logits, names) for logits in outputs_of(trained, rows, to_inputs=pair_inputs)]

    def baseline(self, sources: Sequence[str], train: Iterable[dict[str, str]]) -> tuple[str, list[str]]:
        """Predicts the most frequent class."""
        return "majority", [most_frequent(train, "label")] * len(sources)


TASK = PairClassification
