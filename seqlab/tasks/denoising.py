"""Denoising, to pre-train encoder-decoders: restores a text whose words were dropped, masked and shuffled.

The noise is that of unsupervised translation (Lample et al. 2018); BART uses similar noise (Lewis et al. 2020). The
column `source` is corrupted, and the column `target`, usually the same text, is predicted. Each epoch corrupts a text
differently; evaluation always corrupts it in the same way.
"""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs, TextCodec
from seqlab.config import Batching
from seqlab.data.batches import pair_batch
from seqlab.data.corpus import Corpus
from seqlab.data.plan_cache import cut_pairs_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Task, random_of
from seqlab.layers.losses import generator_loss
from seqlab.system.checks import check_fraction, check_minimum
from seqlab.tasks.masked_tokens import MASK, TEXT
from seqlab.types import Batch, Context, Generator, Loss, Params


@dataclass(frozen=True)
class Denoising(Task):
    drop: float = 0.1
    """Share of the words to drop."""
    mask: float = 0.1
    """Share of the words to replace by [MASK]."""
    distance: int = 3
    """Maximum number of places by which shuffling moves a word; 0: no shuffling."""
    max_tokens: int = 128
    """Maximum number of tokens of a text; longer texts are truncated."""
    loss_chunk: int = field(default=0, repr=False)  # plans do not depend on it
    """Maximum number of positions whose logits are computed at once, to save memory; 0: all."""

    model = Generator
    columns = MappingProxyType({"source": TEXT, "target": TEXT})
    corrupts = True

    def __post_init__(self) -> None:
        check_fraction("task.drop", self.drop)
        check_fraction("task.mask", self.mask)
        check_minimum("task.distance", self.distance, 0)
        check_minimum("task.max_tokens", self.max_tokens, 1)
        check_minimum("task.loss_chunk", self.loss_chunk, 0)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        def sizes() -> np.ndarray:
            return np.minimum(corpus.lengths("source", "target"), self.max_tokens) + 1

        return cut_pairs_plan(self, corpus, batching, self.max_tokens + 1, sizes)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        """Returns the batch. The noise of an example depends on the seed, the epoch and its index alone."""
        codec, sources = codecs["source"], []
        mask_id = TEXT.reserved_id(MASK, codec)
        for index in batch_plan.indices:
            random = random_of(draw, index)
            sources.append(self.corrupt(corpus.row("source", index)[: self.max_tokens], codec, mask_id, random))
        targets = [corpus.row("target", index)[: self.max_tokens] for index in batch_plan.indices]
        return pair_batch(sources, targets, batch_plan, codecs)

    def corrupt(self, text: np.ndarray, codec: TextCodec, mask_id: int, random: np.random.Generator) -> np.ndarray:
        """Returns a text with some of its words, masked or in another order. At least one word remains."""
        if not len(text):
            return text
        words = np.cumsum(codec.begins_word[text])
        words -= words[0]  # the number of the word of each token
        count = int(words[-1]) + 1
        places = np.arange(count) + random.uniform(0, self.distance + 1, count) * (self.distance > 0)
        is_kept, is_masked = random.random(count) >= self.drop, random.random(count) < self.mask
        is_kept[random.integers(count)] |= not is_kept.any()
        is_first = np.diff(words, prepend=-1) > 0
        chosen = is_kept[words] & (is_first | ~is_masked[words])
        noisy = np.where(is_masked[words], mask_id, text)[chosen]
        return noisy[np.argsort(places[words[chosen]], kind="stable")].astype(text.dtype)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the target; see `generator_loss`."""
        return generator_loss(model, params, batch, context, 0.0, self.loss_chunk)


TASK = Denoising
