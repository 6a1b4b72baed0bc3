"""Question answering: predicts the span of a context that is the answer. Metrics: exact match and the F1 of words.

The task is that of SQuAD (Rajpurkar et al. 2016). Question and context form one sequence, each ended by EOS; `types`
mark the context (Devlin et al. 2019). The target is the first occurrence of the answer in the context.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from seqlab.codecs.codec import BLANK, Codecs, TextCodec
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Batching
from seqlab.data.batches import check_one_tokenizer
from seqlab.data.corpus import Corpus
from seqlab.data.padding import joined_pair, pair_inputs
from seqlab.data.plan_cache import bucket_plan
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.task import Draw, Prediction, Task
from seqlab.decoding.outputs import outputs_of
from seqlab.decoding.trained import TrainedModel
from seqlab.layers.losses import cross_entropy, model_outputs
from seqlab.layers.nesting import blank_inputs
from seqlab.system.checks import check_minimums
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Loss, Params, SpanPredictor, Tokens

NEVER = -1e9  # the logit of positions outside the context
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
WORD = rb"[0-9A-Za-z_\x80-\xff]"  # the bytes of words in UTF-8


@dataclass(frozen=True)
class SpanExtraction(Task):
    max_question: int = 64
    """Maximum number of tokens of a question; longer questions are truncated."""
    max_tokens: int = 384
    """Maximum number of tokens of a context; longer contexts are truncated."""
    max_answer: int = 30
    """Maximum number of tokens of a predicted answer."""

    model = SpanPredictor
    columns = MappingProxyType({"question": SentencePiece(), "source": SentencePiece(), "answer": SentencePiece()})
    metrics = ("exact_match", "word_f1")

    def __post_init__(self) -> None:
        check_minimums(self, "task.", max_question=1, max_tokens=1, max_answer=1)

    @property
    def input_columns(self) -> tuple[str, ...]:
        return ("question", "source")

    @property
    def answer_column(self) -> str:
        return "answer"

    @property
    def unit(self) -> str:
        return "example"

    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        limits = self.max_question, self.max_tokens
        batching = dataclasses.replace(batching, max_length=sum(limits) + 2)  # so that no example is left out

        def sizes() -> np.ndarray:
            return np.minimum(corpus.lengths(*self.input_columns), limits).sum(1, keepdims=True) + 2

        return bucket_plan(self, corpus, batching, sizes)

    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Batch:
        """Returns a batch with the positions of the first and the last token of each answer as its targets [B 2].
        Their weights are 1/2, or 0 for an answer that is cut off. Raises `SeqlabError` for an answer that does not
        occur in its context, and if questions and contexts, which form one sequence, have different tokenizers.
        """
        check_one_tokenizer(codecs, self.input_columns)
        count = batch_plan.row_count
        targets, weights = np.zeros((count, 2), np.int32), np.zeros((count, 2), np.float32)
        questions, contexts = ([corpus.row(column, i) for i in batch_plan.indices] for column in self.input_columns)
        for row, index in enumerate(batch_plan.indices):
            answer = corpus.row("answer", index)
            span = span_of(answer, contexts[row], codecs["answer"], codecs["source"])
            if span is None:
                raise SeqlabError(missing_answer(index, answer, codecs["answer"]))
            if span[1] < self.max_tokens:
                targets[row] = np.add(span, len(questions[row][: self.max_question]) + 1)
                weights[row] = 0.5
        rows = self.joined(questions, contexts, codecs["source"].eos)
        return Batch(pair_inputs(rows, codecs["source"], batch_plan.shape[0], count), None, targets, weights)

    def malformed_examples(self, corpus: Corpus, codecs: Codecs) -> Iterator[str]:
        for index in range(len(corpus)):
            answer = corpus.row("answer", index)
            answer_text = text_of(answer, codecs["answer"]).strip()
            if not answer_text or answer_text not in text_of(corpus.row("source", index), codecs["source"]):
                yield missing_answer(index, answer, codecs["answer"])

    def joined(self, questions: Sequence[Any], contexts: Sequence[Any], eos: int) -> list[np.ndarray]:
        """Returns each question and its context as one sequence."""
        limits = self.max_question, self.max_tokens
        return [joined_pair(a[: limits[0]], b[: limits[1]], eos) for a, b in zip(questions, contexts, strict=True)]

    def blank(self, model: Any, rows: int, length: int) -> Batch:
        inputs = blank_inputs(model, rows, length)
        inputs = dataclasses.replace(inputs, types=np.ones_like(inputs.ids))
        return Batch(inputs, None, np.zeros((rows, 2), np.int32), np.full((rows, 2), 0.5, np.float32))

    def places(self, batch: Batch) -> Any:
        return batch.targets

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns the mean of the cross-entropies of the first and the last position, among those of the context, and
        the number of answers that are cut off.
        """
        logits = model_outputs(model, params, batch.inputs, context.key)
        logits = jnp.where(in_context(batch.inputs)[..., None], logits, NEVER)
        total, weight, sums = cross_entropy(jnp.swapaxes(logits, 1, 2), batch.targets, batch.weights)
        cut_off = batch.inputs.mask.any(1) & (batch.weights.sum(1) == 0)
        return Loss(total, weight, {**sums, "cut off": cut_off.sum().astype(jnp.float32)})

    def predict(self, trained: TrainedModel, examples: Mapping[str, Sequence[Any]]) -> list[list[Prediction]]:
        """Returns the most likely span of each context, with its log-probability."""
        codec, predictions = trained.codecs["source"], []
        questions, contexts = (examples[column] for column in self.input_columns)
        rows = self.joined(questions, contexts, codec.eos)
        logits = outputs_of(trained, rows, to_inputs=pair_inputs)
        for row, question, row_logits in zip(rows, questions, logits, strict=True):
            first = len(question[: self.max_question]) + 1
            begin, end, score = best_span(row_logits[first : len(row) - 1], self.max_answer)
            predictions.append([Prediction(codec.decode(row[first + begin : first + end].tolist()), score)])
        return predictions


def in_context(inputs: Tokens) -> Bool[Array, "B P"]:
    """Returns whether each position is in the second text of its row, before the EOS that ends it."""
    second: Any = inputs.types == 1
    return second & jnp.pad(second[:, 1:], ((0, 0), (0, 1)))


def best_span(logits: Float[np.ndarray, "S 2"], longest: int) -> tuple[int, int, float]:
    """Returns the first position of the most likely span, the position after its last one, and its log-probability.
    The span has 1 to `longest` positions; it is empty if there are no positions.
    """
    if not len(logits):
        return 0, 0, 0.0
    log_probs = logits - np.logaddexp.reduce(logits, axis=0)
    scores = log_probs[:, :1] + log_probs[:, 1]
    scores = np.where(np.tri(len(scores), k=longest - 1) * np.tri(len(scores)).T > 0, scores, -np.inf)
    begin, last = np.unravel_index(scores.argmax(), scores.shape)
    return int(begin), int(last) + 1, float(scores[begin, last])


def span_of(
    answer: Int[np.ndarray, "M"], context: Int[np.ndarray, "S"], answer_codec: TextCodec, codec: TextCodec
) -> tuple[int, int] | None:
    """Returns the positions of the first and the last token of the answer's first occurrence in the context, or None
    if it does not occur.

    The characters are compared, since the tokens of a text depend on what surrounds it. An occurrence of whole words
    precedes others. The first and the last token may contain further characters.
    """
    pieces = [surfaces(codec)[i] for i in context]
    text, pattern = b"".join(pieces), re.escape(text_of(answer, answer_codec).strip())
    match = re.search(rb"(?<!%b)%b(?!%b)" % (WORD, pattern, WORD), text) or re.search(pattern, text)
    if not pattern or match is None:
        return None
    ends = np.cumsum([len(piece) for piece in pieces])
    first, last = np.searchsorted(ends, [match.start(), match.end() - 1], side="right").tolist()
    return first, last


def missing_answer(index: int | np.integer, answer: Int[np.ndarray, "M"], codec: TextCodec) -> str:
    """Returns what is wrong with an example whose answer does not occur in its context."""
    return (
        f"example {index + 1}: the answer {codec.decode(answer.tolist())!r} does not occur in the context: correct "
        "the example or remove it"
    )


def text_of(ids: Int[np.ndarray, "S"], codec: TextCodec) -> bytes:
    """Returns the text of tokens in UTF-8."""
    return b"".join(map(surfaces(codec).__getitem__, ids.tolist()))


@functools.lru_cache(maxsize=8)
def surfaces(codec: TextCodec) -> tuple[bytes, ...]:
    """Returns the text of each token in UTF-8. A token of byte fallback is a byte."""
    matches = [BYTE.fullmatch(name) for name in codec.names]
    return tuple(
        bytes([int(match[1], 16)]) if match else name.replace(BLANK, " ").encode()
        for name, match in zip(codec.names, matches, strict=True)
    )


TASK = SpanExtraction
