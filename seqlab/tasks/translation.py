"""Translation: a source sentence to a target sentence; judged by BLEU, chrF, TER and exact match."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqlab.batching import Rows, pad
from seqlab.search.generate import Request
from seqlab.tasks import generator_loss, shifted
from seqlab.text import Corpus, Tokenizers
from seqlab.types import Batch, Carry, Params, Tokens


@dataclass(frozen=True)
class Translation:
    label_smoothing: float = 0.1
    """Share of the target distribution that is spread over the whole vocabulary."""

    KIND = "generator"
    columns = ("source", "target")
    metrics = ("bleu", "chrf", "ter", "exact_match")

    def sizes(self, lengths: np.ndarray) -> np.ndarray:
        """Positions an example takes: both sides have one more than their ids, for EOS, or BOS in the prefix."""
        return lengths + 1

    def collate(self, corpus: Corpus, rows: Rows, tokenizers: Tokenizers) -> Batch:
        """source: x1 .. xn EOS; prefix: BOS y1 .. ym; targets: y1 .. ym EOS."""
        source_length, target_length = rows.shape
        sources = [np.append(corpus.row("source", i), tokenizers["source"].eos) for i in rows.indices]
        return Batch(
            Tokens(*pad(sources, source_length, rows.rows)),
            *shifted(corpus, rows, tokenizers["target"], target_length),
        )

    def loss(self, model: Any, params: Params, batch: Batch, carry: Carry, key: Any) -> Any:
        """Cross-entropy of the target; see `generator_loss`."""
        return generator_loss(model, params, batch, carry, key, self.label_smoothing)

    def requests(self, lines: Sequence[str], tokenizers: Tokenizers, max_length: int) -> list[Request]:
        """By default a translation has at most twice the tokens of its source and 10 more."""
        tokenizer = tokenizers["source"]
        return [
            Request([*ids, tokenizer.eos], [tokenizers["target"].bos], max_length or 2 * len(ids) + 10)
            for ids in tokenizer.encode(lines)
        ]


TASK = Translation
