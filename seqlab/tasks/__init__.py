"""What tasks share: their shape, cross-entropy, and decoding of text.

A task is a frozen dataclass. It says what an example is (`columns`), how examples become a `Batch`
(`sizes`, `collate`), what is minimized (`loss`), what a line of input asks of the search (`requests`),
and which metrics judge the answers.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqlab.batching import Rows, pad
from seqlab.config import Search
from seqlab.errors import SeqlabError
from seqlab.search.generate import Request, first_too_long, generate
from seqlab.text import Corpus, Tokenizer, Tokenizers
from seqlab.types import Batch, Carry, Generator, Params, Tokens


@runtime_checkable
class Task(Protocol):
    KIND: ClassVar[str]
    """What kind of model it needs."""
    columns: tuple[str, ...]
    """The columns of an example that are tokenized."""
    metrics: tuple[str, ...]
    """The names in `seqlab.metrics` that judge decoded text; none: the task is judged by its loss alone."""

    def sizes(self, lengths: np.ndarray) -> np.ndarray: ...
    def collate(self, corpus: Corpus, rows: Rows, tokenizers: Tokenizers) -> Batch: ...
    def loss(self, model: Generator, params: Params, batch: Batch, carry: Carry, key: Any) -> Any: ...
    def requests(self, lines: Sequence[str], tokenizers: Tokenizers, max_length: int) -> list[Request]: ...


def cross_entropy(
    logits: Float[Array, "B T V"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """(loss_sum, weight_sum, {"nll", "correct"} sums) over weighted positions, in nats.

    With smoothing e the target distribution is (1 - e) on the target and e spread over the vocabulary
    (Szegedy et al. 2016); "nll" is without it.
    """
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    nll = normalizer - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = nll
    if label_smoothing:
        loss = (1 - label_smoothing) * nll + label_smoothing * (normalizer - logits.mean(-1))
    hits = logits.argmax(-1) == targets
    sums = {"nll": (nll * weights).sum(), "correct": (hits * weights).sum()}
    return (loss * weights).sum(), weights.sum(), sums


def generator_loss(
    model: Any, params: Params, batch: Batch, carry: Carry, key: Any, label_smoothing: float
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array], Carry]:
    """Teacher-forced cross-entropy; `key` drives dropout, None means evaluation: no dropout, no smoothing."""
    train = key is not None

    def run(module: Any) -> tuple[jax.Array, Carry]:
        features, after = module.features(batch.inputs, batch.prefix, carry, train=train)
        return module.project(features), after

    rngs = {"dropout": key} if train else None
    logits, carry = model.apply(params, rngs=rngs, method=run)
    loss, weight, sums = cross_entropy(logits, batch.targets, batch.weights, label_smoothing if train else 0.0)
    if train:
        del sums["correct"]  # not worth a pass over the logits in every step
    return loss, weight, sums, carry


def shifted(corpus: Corpus, rows: Rows, tokenizer: Tokenizer, length: int) -> tuple[Tokens, np.ndarray, np.ndarray]:
    """(prefix, targets, weights) of the target column: the prefix is BOS y1 .. ym, the targets y1 .. ym EOS."""
    targets = [np.append(corpus.row("target", i), tokenizer.eos) for i in rows.indices]
    prefixes = [np.append(tokenizer.bos, row[:-1]) for row in targets]
    ids, mask = pad(targets, length, rows.rows)
    return Tokens(*pad(prefixes, length, rows.rows)), ids, mask.astype(np.float32)


class Written(NamedTuple):
    """One decoded text, its score normalized by length, and its log-probability."""

    text: str
    score: float
    log_prob: float


def decode_lines(
    task: Task,
    model: Any,
    params: Params,
    tokenizers: Tokenizers,
    lines: Sequence[str],
    search: Search,
    *,
    wanted: int = 1,
    progress: Callable[[int], None] = lambda count: None,
) -> list[list[Written]]:
    """The `wanted` best texts for each line, best first. A blank line gives one empty text, unsearched."""
    asked = [i for i, line in enumerate(lines) if line.strip()]
    requests = task.requests([lines[i] for i in asked], tokenizers, search.max_length)
    if (index := first_too_long(model, requests)) is not None:
        raise SeqlabError(
            f"line {asked[index] + 1} has more tokens than the model has positions: {lines[asked[index]][:40]}"
        )
    results = generate(
        model,
        params,
        requests,
        eos=Tokenizer.eos,
        beam=search.beam,
        alpha=search.alpha,
        wanted=wanted,
        progress=progress,
    )
    written: list[list[Written]] = [[Written("", 0.0, 0.0)] for _ in lines]
    decode = tokenizers["target"].decode
    for i, request, found in zip(asked, requests, results, strict=True):
        # A language model's text begins with its prompt; a translation's prompt is BOS alone.
        written[i] = [Written(decode([*request.prompt, *r.ids]), r.score, r.log_prob) for r in found]
    return written
