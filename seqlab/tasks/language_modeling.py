"""Language modeling. Metric: perplexity. Decoding continues a prompt."""

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

DEFAULT_LENGTH = 128  # maximum number of tokens after a prompt


@dataclass(frozen=True)
class LanguageModeling(Task):
    rows: str = "lines"
    """Content of each row of a batch: "lines", one example;
    "packed", as many independent examples as fit into batching.max_length;
    "stream", the next batching.max_length tokens of the text, with the state of a recurrent model carried over."""
    label_smoothing: float = 0.0
    """Label smoothing: share of the target probability that is spread over the vocabulary."""
    prompts: int = 0
    """Number of soft prompts before each row (Lester et al. 2021); set model.prompts to the same number."""
    loss_chunk: int = field(default=0, repr=False)  # plans do not depend on it
    """Maximum number of positions whose logits are computed at once, to save memory; 0: all."""

    model = Generator
    columns = MappingProxyType({"target": SentencePiece()})
    metrics = ()

    def __post_init__(self) -> None:
        if self.rows not in ("lines", "packed", "stream"):
            raise SeqlabError(f"task.rows must be lines, packed or stream, not {self.rows!r}")
        if self.prompts and self.rows == "packed":
            raise SeqlabError("task.prompts needs rows of one text: set task.rows to lines or stream")
        check_minimum("task.prompts", self.prompts, 0)
        check_minimum("task.loss_chunk", self.loss_chunk, 0)
        check_fraction("task.label_smoothing", self.label_smoothing)

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        count = max(batching.tokens // batching.max_length, 1)
        if corpus.parts and self.rows != "lines":
            raise SeqlabError(f"a mixture with rates requires task.rows 'lines', not {self.rows!r}")
        if self.rows == "stream":
            tokens = len(corpus.values["target"]) + len(corpus) - 2
            if tokens < 1:
                raise SeqlabError("a stream needs a text of at least two tokens")
            return Streams(tokens, batching.max_length, count)
        if self.rows == "packed":

            def make() -> Packing:
                return make_packing(corpus.lengths("target")[:, 0] + 1, batching.max_length, count)

            return cached_plan(make, self, corpus, batching)
        return bucket_plan(self, corpus, batching, lambda: corpus.lengths("target") + 1)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        """Returns a batch with the prefix BOS y1 .. ym and the targets y1 .. ym EOS, or for a stream, with tokens and
        their successors. Soft prompts precede the prefix.
        """
        tokenizer = codecs["target"]
        batch = self.collate_text(corpus, batch_plan, tokenizer)
        return with_prompts(batch, self.prompts, tokenizer.size) if self.prompts else batch

    def collate_text(self, corpus: Corpus, batch_plan: BatchPlan, tokenizer: Any) -> Batch:
        if self.rows == "stream":
            ids, real = stretch(corpus, batch_plan.indices, batch_plan.shape[0] + 1, tokenizer.newline)
            mask = real[:, :-1] & real[:, 1:]  # the last token of the text has no successor
            fresh = np.full(len(ids), batch_plan.starts_stream)
            return Batch(None, Tokens(ids[:, :-1] * mask, mask), ids[:, 1:], mask.astype(np.float32), fresh)
        examples = [corpus.row("target", i) for i in batch_plan.indices]
        if self.rows == "lines":
            return Batch(None, *shift_targets(examples, tokenizer, batch_plan.shape[0], batch_plan.row_count))
        assert batch_plan.examples_per_row is not None
        return packed(examples, batch_plan.examples_per_row, tokenizer, batch_plan.shape[0], batch_plan.row_count)

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the cross-entropy of the next tokens; see `generator_loss`. Raises `SeqlabError` if the model has
        another number of soft prompts.
        """
        prompts = getattr(model, "prompts", 0)
        if prompts != self.prompts:
            raise SeqlabError(
                f"the model has {prompts} soft prompts, but the task {self.prompts}: set model.prompts and "
                "task.prompts to the same number"
            )
        return generator_loss(model, params, batch, context, self.label_smoothing, self.loss_chunk)

    def requests(self, inputs: Sequence[Any], codecs: Codecs, max_length: int) -> list[Request]:
        """Returns requests with prompts of BOS and the inputs, after the soft prompts, if any. A stream has no BOS;
        its empty prompt is a newline.
        """
        tokenizer = codecs["target"]
        soft = [tokenizer.size + i for i in range(self.prompts)]
        requests = []
        for ids in inputs:
            begin = [tokenizer.bos]
            if self.rows == "stream":
                begin = [] if len(ids) else [tokenizer.newline]
            begin = [*soft, *begin]
            requests.append(Request(None, [*begin, *ids], max_length or DEFAULT_LENGTH, begin=len(begin)))
        return requests


def with_prompts(batch: Batch, count: int, vocabulary: int) -> Batch:
    """Returns the batch with `count` soft prompts, the ids from `vocabulary` upwards, before each row that is not
    empty. Their targets have weight 0.
    """

    def pad_left(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (count, 0)))

    assert batch.prefix is not None
    ids, mask = pad_left(batch.prefix.ids), pad_left(batch.prefix.mask)
    mask[:, :count] = batch.prefix.mask.any(axis=1)[:, None]
    ids[:, :count] = (vocabulary + np.arange(count)) * mask[:, :count]
    prefix = Tokens(ids, mask)
    return Batch(None, prefix, pad_left(batch.targets), pad_left(batch.weights), batch.fresh)


def stretch(corpus: Corpus, starts: np.ndarray, count: int, newline: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `count` ids from each start position, [rows, count], and the mask of the ids inside the text. A start
    position may precede the text.
    """
    offsets, ids = corpus.offsets["target"], corpus.values["target"]
    places = starts[:, None] + np.arange(count)
    # Example i starts at position offsets[i] + i, since a newline follows each example. Bisection finds i.
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
    """Returns a batch of concatenated examples, `examples_per_row` of them in the rows of `length`. Each example is a
    segment that starts with BOS.
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
