"""Span corruption, to pre-train encoder-decoders (Raffel et al. 2020): predicts spans that the source lacks.

In the source, a sentinel replaces each span. The target has each sentinel, followed by its span:

    text      the tour ends at the old harbor       source    the [S0] at the [S1]
                                                    target    [S0] tour ends [S1] old harbor

Each epoch chooses other spans; evaluation always chooses the same ones. The text is the column `source`. The
tokenizer is also learned from the column `target`, which can be the same text; its content is not used otherwise.
"""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.batches import check_one_tokenizer, pair_batch
from seqlab.data.corpus import Corpus
from seqlab.data.plan_cache import cut_pairs_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Task, random_of
from seqlab.layers.losses import generator_loss
from seqlab.system.checks import check_fraction, check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Generator, Loss, Params

SENTINELS = tuple(f"[S{i}]" for i in range(64))
TEXT = SentencePiece(reserved=SENTINELS)


@dataclass(frozen=True)
class SpanCorruption(Task):
    share: float = 0.15
    """Share of the tokens that are in spans."""
    span: float = 3.0
    """Mean number of tokens in a span."""
    max_tokens: int = 256
    """Maximum number of tokens of a text; longer texts are truncated."""
    loss_chunk: int = field(default=0, repr=False)  # plans do not depend on it
    """Maximum number of positions whose logits are computed at once, to save memory; 0: all."""

    model = Generator
    columns = MappingProxyType({"source": TEXT, "target": TEXT})
    corrupts = True

    def __post_init__(self) -> None:
        check_fraction("task.share", self.share)
        check_minimum("task.span", self.span, 1)
        check_minimum("task.max_tokens", self.max_tokens, 2)
        check_minimum("task.loss_chunk", self.loss_chunk, 0)
        if self.counts(self.max_tokens)[1] > len(SENTINELS):
            raise SeqlabError(
                f"a text of {self.max_tokens} tokens has more than {len(SENTINELS)} spans: lower task.max_tokens or "
                "task.share, or raise task.span"
            )

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        def sizes() -> np.ndarray:
            lengths = np.minimum(corpus.lengths("source")[:, 0], self.max_tokens)
            missing, spans = self.counts(lengths)
            return np.stack([lengths - missing + spans, missing + spans], axis=1) + 1

        return cut_pairs_plan(self, corpus, batching, self.max_tokens + 1, sizes)

    def counts(self, length: Any) -> tuple[Any, Any]:
        """Returns the numbers of missing tokens and of spans in texts of `length` tokens, as in Raffel et al. (2020).
        A text of one token has none.
        """
        missing = np.clip(np.rint(length * self.share), 1, np.maximum(length - 1, 0))
        spans = np.clip(np.rint(missing / self.span), np.minimum(missing, 1), np.minimum(missing, length - missing))
        return missing.astype(np.int64), spans.astype(np.int64)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        """Returns the batch. The spans of an example depend on the seed, the epoch and its index alone."""
        check_one_tokenizer(codecs, ("source", "target"))
        sentinels = [TEXT.reserved_id(name, codecs["source"]) for name in SENTINELS]
        sources, targets = [], []
        for index in batch_plan.indices:
            random = random_of(draw, index)
            source, target = self.corrupt(corpus.row("source", index)[: self.max_tokens], sentinels, random)
            sources.append(source)
            targets.append(target)
        return pair_batch(sources, targets, batch_plan, codecs)

    def corrupt(
        self, text: np.ndarray, sentinels: list[int], random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the text with sentinels for its spans, and the sentinels with the spans."""
        missing, spans = (int(n) for n in self.counts(len(text)))
        if not spans:
            return text, text[:0]
        # The text is divided into `spans` pairs of a part that remains and a missing part, none of which is empty.
        sizes = np.stack([partition(len(text) - missing, spans, random), partition(missing, spans, random)], axis=1)
        parts = np.split(text, np.cumsum(sizes.ravel())[:-1])
        source = [np.append(parts[2 * i], sentinels[i]) for i in range(spans)]
        target = [np.append(sentinels[i], parts[2 * i + 1]) for i in range(spans)]
        return np.concatenate(source), np.concatenate(target)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the target; see `generator_loss`."""
        return generator_loss(model, params, batch, context, 0.0, self.loss_chunk)


def partition(total: int, parts: int, random: np.random.Generator) -> np.ndarray:
    """Returns the sizes of random, nonempty parts that add up to `total`; all divisions are equally likely."""
    ends = np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(ends, prepend=0, append=total)


TASK = SpanCorruption
