"""Tagging of words, which are divided into tokens: predicts a label for each word. Metrics: span F1 and exact match.

A word begins after a space. Its label is predicted at its first token (Devlin et al. 2019, section 5.3).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs, TextCodec
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.codecs.symbols import Symbols
from seqlab.config import Batching
from seqlab.data.corpus import Corpus
from seqlab.data.padding import pad_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Prediction, Task
from seqlab.decoding.outputs import predict_tags
from seqlab.decoding.trained import TrainedModel
from seqlab.layers.losses import tagger_loss
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Loss, Params, Tagger


@dataclass(frozen=True)
class WordTagging(Task):
    model = Tagger
    columns = MappingProxyType({"source": SentencePiece(), "label": Symbols()})
    metrics = ("span_f1", "exact_match")

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        return bucket_plan(self, corpus, batching, lambda: corpus.lengths("source"))

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        """Returns a batch whose weights are 1 at the first token of each word."""
        (length,), count = batch_plan.shape, batch_plan.row_count
        targets, weights = np.zeros((count, length), np.int32), np.zeros((count, length), np.float32)
        sources = [corpus.row("source", i) for i in batch_plan.indices]
        for i, (source, index) in enumerate(zip(sources, batch_plan.indices, strict=True)):
            labels, places = corpus.row("label", index), first_tokens(source, codecs["source"])
            if len(labels) != len(places):
                raise SeqlabError(mismatch(index, len(places), len(labels)))
            targets[i, places], weights[i, places] = labels, 1.0
        return Batch(pad_inputs(sources, codecs["source"], length, count), None, targets, weights)

    def malformed_examples(self, corpus: Corpus, codecs: Codecs) -> Iterator[str]:
        words = corpus.counts("source", codecs["source"].begins_word)
        labels = corpus.lengths("label")[:, 0]
        return (mismatch(index, words[index], labels[index]) for index in np.flatnonzero(words != labels))

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the labels."""
        return tagger_loss(model, params, batch, context)

    def predict(self, trained: TrainedModel, examples: Mapping[str, Sequence[Any]]) -> list[list[Prediction]]:
        """Returns the most likely label of each word."""
        codec = trained.codecs["source"]
        return predict_tags(
            trained, examples["source"], lambda source: first_tokens(np.asarray(source, np.int64), codec)
        )


def mismatch(index: int | np.integer, words: int | np.integer, labels: int | np.integer) -> str:
    """Returns what is wrong with an example that does not have one label per word."""
    return (
        f"example {index + 1} has {words} words but {labels} labels: give each word one label, and set "
        "text.kind to bpe"
    )


def first_tokens(ids: np.ndarray, codec: TextCodec) -> np.ndarray:
    """Returns the positions of the first token of each word."""
    return np.flatnonzero(codec.begins_word[ids])


TASK = WordTagging
