"""Language modeling, a line at a time; judged by perplexity. Decoding goes on from a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqlab.batching import Rows
from seqlab.search.generate import Request
from seqlab.tasks import generator_loss, shifted
from seqlab.text import Corpus, Tokenizers
from seqlab.types import Batch, Carry, Params

DEFAULT_LENGTH = 128  # most tokens written after a prompt


@dataclass(frozen=True)
class LanguageModeling:
    label_smoothing: float = 0.0
    """Share of the target distribution that is spread over the whole vocabulary."""

    KIND = "generator"
    columns = ("target",)
    metrics = ()

    def sizes(self, lengths: np.ndarray) -> np.ndarray:
        """Positions a line takes: one more than its ids, for EOS, or BOS in the prefix."""
        return lengths + 1

    def collate(self, corpus: Corpus, rows: Rows, tokenizers: Tokenizers) -> Batch:
        """prefix: BOS y1 .. ym; targets: y1 .. ym EOS."""
        return Batch(None, *shifted(corpus, rows, tokenizers["target"], *rows.shape))

    def loss(self, model: Any, params: Params, batch: Batch, carry: Carry, key: Any) -> Any:
        """Cross-entropy of each next token; see `generator_loss`."""
        return generator_loss(model, params, batch, carry, key, self.label_smoothing)

    def requests(self, lines: Sequence[str], tokenizers: Tokenizers, max_length: int) -> list[Request]:
        """A line is a prompt."""
        tokenizer = tokenizers["target"]
        return [Request(None, [tokenizer.bos, *ids], max_length or DEFAULT_LENGTH) for ids in tokenizer.encode(lines)]


TASK = LanguageModeling
