"""Masked-token prediction, optionally with next-sentence prediction (Devlin et al. 2019). Metric: perplexity.

Of the masked tokens, 80% are replaced by [MASK], 10% by a random token, and 10% remain as they are. Each epoch
masks other tokens; evaluation always masks the same ones.
"""

import dataclasses
import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import struct

from seqlab.codecs.codec import Codecs, TextCodec
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.corpus import Corpus
from seqlab.data.padding import joined_pair, pad, pair_inputs, token_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Task, random_of
from seqlab.layers.losses import cross_entropy
from seqlab.layers.nesting import blank_inputs
from seqlab.system.checks import check_fraction, check_minimum
from seqlab.types import Context, Loss, MaskedPredictor, Params, Tokens

MASK = "[MASK]"
TEXT = SentencePiece(reserved=(MASK,))
KEPT, RANDOM = 0.1, 0.1  # shares of the masked tokens that remain as they are, or become random tokens


@struct.dataclass
class MaskedBatch:
    """A batch of masked texts: the `places` of M masked tokens in each row, their `targets` and `weights` [B M], and
    whether the second text of a row `follows` the first, 0 or 1 [B].
    """

    inputs: Tokens
    places: Any
    targets: Any
    weights: Any
    follows: Any


@dataclass(frozen=True)
class MaskedTokens(Task):
    share: float = 0.15
    """Share of the tokens to mask. At least one token of each example is masked, unless `whole_words` is set and
    every word is longer than the share allows."""
    whole_words: bool = False
    """Mask all tokens of a word, or none."""
    next_sentence: bool = False
    """Split each text between two sentences, replace the second part with a part of another text in half of the
    examples, and predict whether it follows the first part. A text of one sentence is split in the middle."""
    max_tokens: int = 128
    """Maximum number of tokens of a text; longer texts are truncated."""

    model = MaskedPredictor
    columns = MappingProxyType({"source": TEXT})
    corrupts = True

    def __post_init__(self) -> None:
        check_fraction("task.share", self.share)
        check_minimum("task.max_tokens", self.max_tokens, 2)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        """Returns buckets. A pair of texts has two more tokens, which end its texts."""
        ends = 2 if self.next_sentence else 0

        def sizes() -> np.ndarray:
            return np.clip(corpus.lengths("source"), 1, self.max_tokens) + ends

        return bucket_plan(self, corpus, dataclasses.replace(batching, max_length=self.max_tokens + ends), sizes)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> MaskedBatch:
        """Returns the batch. The randomness of an example depends on the seed, the epoch and its index alone."""
        codec, (length,), count = codecs["source"], batch_plan.shape, batch_plan.row_count
        rows, places, targets, follows = [], [], [], np.zeros(count, np.int32)
        for i, index in enumerate(batch_plan.indices):
            random = random_of(draw, index)
            text = corpus.row("source", index)[: self.max_tokens]
            if self.next_sentence:
                (first, second), follows[i] = self.pair(text, corpus, int(index), codec, random)
                text = joined_pair(first, second[: len(text) - len(first)], codec.eos)
            masked, chosen = self.mask(text, codec, random)
            rows.append(masked)
            places.append(chosen)
            targets.append(text[chosen])
        inputs = (pair_inputs if self.next_sentence else token_inputs)(rows, codec, length, count)
        room = self.count(length)
        (place_array, weights), (target_array, _) = (pad(values, room, count) for values in (places, targets))
        return MaskedBatch(inputs, place_array, target_array, weights.astype(np.float32), follows)

    def pair(
        self, text: np.ndarray, corpus: Corpus, index: int, codec: TextCodec, random: np.random.Generator
    ) -> tuple[tuple[np.ndarray, np.ndarray], bool]:
        """Returns two texts, and whether the second one follows the first."""
        first, second = split_at_random(text, codec.newline, random)
        follows = bool(random.random() < 0.5) or len(corpus) == 1
        if not follows:
            second_index = (index + 1 + random.integers(len(corpus) - 1)) % len(corpus)
            _, second = split_at_random(corpus.row("source", second_index), codec.newline, random)
        return (first, second), follows

    def blank(self, model: Any, rows: int, length: int) -> MaskedBatch:
        zeros = np.zeros((rows, self.count(length)), np.int32)
        return MaskedBatch(blank_inputs(model, rows, length), zeros, zeros, zeros + np.float32(1), zeros[:, 0])

    def places(self, batch: MaskedBatch) -> Any:
        return batch.places

    def count(self, length: int) -> int:
        """Returns the number of tokens to mask in a text of `length` tokens."""
        return max(round(self.share * length), min(length, 1))

    def mask(self, text: np.ndarray, codec: TextCodec, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns the text with masked tokens, and their places in ascending order."""
        maskable = np.flatnonzero(text != codec.eos)
        words = np.cumsum(codec.begins_word[text])[maskable] if self.whole_words else np.arange(len(maskable))
        places = maskable[chosen_words(words, self.count(len(maskable)), random)]
        kinds, masked = random.random(len(places)), text.copy()
        masked[places[kinds >= KEPT]] = TEXT.reserved_id(MASK, codec)
        substituted = places[(kinds >= KEPT) & (kinds < KEPT + RANDOM)]
        masked[substituted] = random.choice(plain_ids(codec), len(substituted))
        return masked, places

    def loss(self, model: Any, params: Params, batch: MaskedBatch, context: Context) -> Loss:
        """Returns the cross-entropy of the masked tokens and, for pairs of texts, of whether the second follows."""
        train = context.key is not None
        rngs = {"dropout": context.key} if train else None
        logits, follows = model.apply(
            params, batch.inputs, batch.places, train=train, rngs=rngs, method="predict_tokens"
        )
        total, weight, sums = cross_entropy(logits, batch.targets, batch.weights)
        if self.next_sentence:
            # A pair has the weight of the masked tokens of its row: the loss is the sum of both means.
            signs, pair_weights = 2.0 * batch.follows - 1.0, batch.weights.sum(1)
            pair_loss = (jax.nn.softplus(-signs * follows) * pair_weights).sum()
            sums |= {"pair loss": pair_loss, "pair accuracy": ((signs * follows > 0) * pair_weights).sum()}
            total += pair_loss
        return Loss(total, weight, sums)


def split_at_random(text: np.ndarray, newline: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns the parts of a text before and after a random newline, or its halves if it has none."""
    ends = np.flatnonzero(text == newline)
    if not len(ends):
        return text[: len(text) // 2], text[len(text) // 2 :]
    at = random.choice(ends)
    return text[:at], text[at + 1 :]


def chosen_words(words: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Returns the places, in ascending order, of all tokens of randomly chosen words. Words are taken in random order
    until the next one would exceed `count` tokens in total; words of more than `count` tokens are left out. `words`
    has the number of the word of each token.
    """
    numbers, sizes = np.unique(words, return_counts=True)
    order = random.permutation(np.flatnonzero(sizes <= count))
    return np.flatnonzero(np.isin(words, numbers[order[np.cumsum(sizes[order]) <= count]]))


@functools.lru_cache(maxsize=8)
def plain_ids(codec: SentencePiece) -> np.ndarray:
    """Returns the ids of the tokens that a text can contain."""
    processor = codec.processor
    return np.array([i for i in range(codec.size) if not processor.is_control(i) and not processor.is_unknown(i)])


TASK = MaskedTokens
