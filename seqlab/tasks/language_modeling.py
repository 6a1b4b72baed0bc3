"""Language modeling; judged by perplexity. Decoding goes on from a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codecs
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.batches import shift_targets
from seqlab.data.corpus import Corpus
from seqlab.data.packing import Packing, make_packing
from seqlab.data.padding import pad
from seqlab.data.plan_cache import bucket_plan, cached_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.streams import Streams
from seqlab.data.task import Draw, Task
from seqlab.layers.losses import generator_loss
from seqlab.search.requests import Request
from seqlab.system.checks import check_fraction, check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Generator, Loss, Params, Tokens

DEFAULT_LENGTH = 128  # maximum tokens after a prompt


@dataclass(frozen=True)
class LanguageModeling(Task):
    rows: str = "lines"
    """What a row of a batch is. lines: one example. packed: as many examples as fit into batching.max_length, none of
    which sees another. stream: the next batching.max_length tokens of one of several stretches of the whole text, its
    examples joined by newlines; a recurrent model's state is carried on."""
    label_smoothing: float = 0.0
    """Share of the target distribution that is spread over the whole vocabulary."""
    loss_chunk: int = field(default=0, repr=False)  # a plan does not depend on it
    """Positions whose logits are held at once, as many of each row and one at least; 0: all."""

    model = Generator
    columns = MappingProxyType({"target": SentencePiece()})
    metrics = ()

    def __post_init__(self) -> None:
        if self.rows not in ("lines", "packed", "stream"):
            raise SeqlabError(f"task.rows must be lines, packed or stream, not {self.rows!r}")
        check_minimum("task.loss_chunk", self.loss_chunk, 0)
        check_fraction("task.label_smoothing", self.label_smoothing)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        count = max(batching.tokens // batching.max_length, 1)
        if corpus.parts and self.rows != "lines":
            raise SeqlabError(f"the rates of a mixture need task.rows lines, not {self.rows}")
        if self.rows == "stream":
            tokens = len(corpus.values["target"]) + len(corpus) - 2
            if tokens < 1:
                raise SeqlabError("a stream needs a text of two tokens or more")
            return Streams(tokens, batching.max_length, count)
        if self.rows == "packed":

            def make() -> Packing:
                return make_packing(corpus.lengths("target")[:, 0] + 1, batching.max_length, count)

            return cached_plan(make, self, corpus, batching)
        return bucket_plan(self, corpus, batching, lambda: corpus.lengths("target") + 1)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        """prefix: BOS y1 .. ym; targets: y1 .. ym EOS; in a stream, the tokens there and their successors."""
        tokenizer = codecs["target"]
        if self.rows == "stream":
            ids, real = stretch(corpus, batch_plan.indices, batch_plan.shape[0] + 1, tokenizer.newline)
            mask = real[:, :-1] & real[:, 1:]  # the last token of the text has nothing after it
            fresh = np.full(len(ids), batch_plan.starts_stream)
            return Batch(None, Tokens(ids[:, :-1] * mask, mask), ids[:, 1:], mask.astype(np.float32), fresh)
        examples = [corpus.row("target", i) for i in batch_plan.indices]
        if self.rows == "lines":
            return Batch(None, *shift_targets(examples, tokenizer, batch_plan.shape[0], batch_plan.row_count))
        assert batch_plan.examples_per_row is not None
        return packed(examples, batch_plan.examples_per_row, tokenizer, batch_plan.shape[0], batch_plan.row_count)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Cross-entropy of each next token; see `generator_loss`."""
        return generator_loss(model, params, batch, context, self.label_smoothing, self.loss_chunk)

    def requests(self, inputs: Sequence[Any], codecs: Codecs, max_length: int) -> list[Request]:
        """The inputs are prompts, after BOS. A stream has no BOS, and an empty prompt in it is the end of a line."""
        tokenizer = codecs["target"]
        begin = [] if self.rows == "stream" else [tokenizer.bos]
        prompts = [[*begin, *ids] or [tokenizer.newline] for ids in inputs]
        return [Request(None, prompt, max_length or DEFAULT_LENGTH) for prompt in prompts]


def stretch(corpus: Corpus, starts: np.ndarray, count: int, newline: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` ids from each of some places, [rows, count], and which of them are in the text; a place may lie before
    its beginning.
    """
    offsets, ids = corpus.offsets["target"], corpus.values["target"]
    places = starts[:, None] + np.arange(count)
    # Example i begins at place offsets[i] + i, for there is a newline behind each: bisection over i.
    low, high = np.zeros_like(places), np.full_like(places, len(corpus))
    while (high - low > 1).any():
        middle = (low + high) // 2
        before = offsets[middle] + middle <= places
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    at = np.maximum(places - low, 0)
    real = (places >= 0) & (places < len(ids) + len(corpus) - 1)
    between = at >= offsets[low + 1]
    tokens = np.where(between, newline, corpus.checked_ids("target", ids[np.minimum(at, len(ids) - 1)]))
    return np.where(real, tokens, 0).astype(np.int32), real


def packed(
    examples: list[np.ndarray], examples_per_row: np.ndarray, tokenizer: Any, length: int, count: int
) -> Batch:
    """Examples one behind the other, `examples_per_row` in the rows of `length`; each is a segment that begins with
    BOS.
    """
    rows = np.split(np.arange(len(examples)), np.cumsum(examples_per_row)[:-1]) if len(examples_per_row) else []

    def joined(pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return pad([np.concatenate([pieces[i] for i in row]) for row in rows], length, count)

    ids, mask = joined([np.append(tokenizer.bos, example) for example in examples])
    targets, _ = joined([np.append(example, tokenizer.eos) for example in examples])
    marks, _ = joined([np.full(len(examples[i]) + 1, n) for row in rows for n, i in enumerate(row, 1)])
    return Batch(None, Tokens(ids, mask, segments=marks), targets, mask.astype(np.float32))


TASK = LanguageModeling
VARIANTS = (LanguageModeling("packed"), LanguageModeling("stream"))
