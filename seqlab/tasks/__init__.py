"""What tasks share: their shape, their plan over buckets, cross-entropy, and their answers.

A task is a frozen dataclass. It says what an example is (`columns`, and how each becomes ids), how
examples become batches (`plan`, `collate`), what is minimized (`loss`), and which `metrics` judge the answers. A task
for generators says what a line of input asks of the search (`requests`), one for classifiers answers itself
(`answer`). A `separator` stands in a typed line for the newlines of a source. `baseline`, if it has one, gives the
trivial answers that a model must beat, and what they are.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqlab.batching import VERSION, Buckets, Packing, Plan, Rows, kept_plan, make_buckets, pad
from seqlab.config import Batching
from seqlab.errors import SeqlabError
from seqlab.search.requests import Request
from seqlab.text import Corpus, TextTokenizer, Tokenizers
from seqlab.types import Batch, Carry, Params, Series, Tokens


@runtime_checkable
class Task(Protocol):
    KIND: ClassVar[str]
    """What kind of model it needs."""
    columns: Mapping[str, str]
    """The columns of an example, and what each holds: "text", the name of a "class", "symbols" or "numbers"."""
    metrics: tuple[str, ...]
    """The names in `seqlab.metrics` that judge answers; none: the task is judged by its loss alone."""

    def plan(self, corpus: Corpus, batching: Batching) -> Plan: ...
    def collate(self, corpus: Corpus, rows: Rows, tokenizers: Tokenizers) -> Batch: ...
    def loss(self, model: Any, params: Params, batch: Batch, carry: Carry, key: Any) -> Any: ...


def bucket_plan(
    task: Any, corpus: Corpus, batching: Batching, sizes: Callable[[], np.ndarray], *, any_ratio: bool = False
) -> Plan:
    """Buckets over the positions that examples take, `sizes()` [examples, columns]; kept beside the corpus.

    `any_ratio`: a pair may be as lopsided as it likes.
    """
    if any_ratio:
        batching = dataclasses.replace(batching, max_ratio=math.inf)

    def make() -> Buckets:
        return make_buckets(sizes(), batching, corpus.parts)

    return kept(make, task, corpus, batching)


def cut_source_plan(task: Any, corpus: Corpus, batching: Batching, most: int) -> Plan:
    """`bucket_plan` for pairs whose source is cut to `most` tokens; a target that is too long leaves them out."""
    longest = max(batching.max_length, most + 1)

    def sizes() -> np.ndarray:
        source, target = np.minimum(corpus.lengths("source"), most) + 1, corpus.lengths("target") + 1
        return np.concatenate([source, np.where(target > batching.max_length, longest + 1, target)], axis=1)

    return bucket_plan(task, corpus, dataclasses.replace(batching, max_length=longest), sizes, any_ratio=True)


def kept(make: Callable[[], Buckets | Packing], task: Any, corpus: Corpus, batching: Batching) -> Plan:
    """The plan that `make` gives for a task, kept beside the corpus."""
    if corpus.folder is None:
        return make()
    identity = hashlib.sha256(repr((VERSION, task, batching, corpus.parts)).encode()).hexdigest()[:24]
    return kept_plan(corpus.folder / f"plan-{identity}", make, batching, len(corpus))


def make_batch(task: Any, corpus: Corpus, tokenizers: Tokenizers, rows: Rows) -> Batch:
    """The task's batch of some rows. Raises `SeqlabError` naming the corpus's folder where these do not make one: ids
    and plan are kept there, and were checked before they were.
    """
    try:
        return task.collate(corpus, rows, tokenizers)
    except SeqlabError as error:
        raise SeqlabError(f"{corpus.folder}: damaged ({error}); remove it, and it is made again") from None


def single(corpus: Corpus, column: str, rows: Rows) -> np.ndarray:
    """The one id of each row in a column, int32."""
    found = [corpus.row(column, i) for i in rows.indices]
    if any(len(one) != 1 for one in found):
        raise SeqlabError(f"{column}.offsets: an example that has not one {column}")
    return np.concatenate([corpus.ids[column][:0], *found])


def cross_entropy(
    logits: Float[Array, "*N V"],
    targets: Int[Array, "*N"],
    weights: Float[Array, "*N"],
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """(loss_sum, weight_sum, {"nll", "correct"} sums) over weighted positions, in nats.

    With smoothing e the target distribution is (1 - e) on the target and e spread over the vocabulary
    (Szegedy et al. 2016); "nll" is without it.
    """
    normalizer, chosen = normalizer_and_chosen(logits, targets)
    nll = normalizer - chosen
    loss = nll
    if label_smoothing:
        loss = (1 - label_smoothing) * nll + label_smoothing * (normalizer - logits.mean(-1))
    hits = logits.argmax(-1) == targets
    sums = {"nll": (nll * weights).sum(), "correct": (hits * weights).sum()}
    return (loss * weights).sum(), weights.sum(), sums


@jax.custom_vjp
def normalizer_and_chosen(
    logits: Float[Array, "*N V"], targets: Int[Array, "*N"]
) -> tuple[Float[Array, "*N"], Float[Array, "*N"]]:
    """Log-sum-exp, and the target's logit. Their gradient is made in one pass over the logits, from the logits."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1), chosen


def _forward(logits: jax.Array, targets: jax.Array):
    normalizer, chosen = normalizer_and_chosen(logits, targets)
    return (normalizer, chosen), (logits, targets, normalizer)


def _backward(kept: tuple[jax.Array, jax.Array, jax.Array], gradients: tuple[jax.Array, jax.Array]):
    logits, targets, normalizer = kept
    of_all, of_chosen = (g[..., None] for g in gradients)
    is_target = targets[..., None] == jnp.arange(logits.shape[-1])
    return of_all * jnp.exp(logits - normalizer[..., None]) + jnp.where(is_target, of_chosen, 0.0), None


normalizer_and_chosen.defvjp(_forward, _backward)


def generator_loss(
    model: Any, params: Params, batch: Batch, carry: Carry, key: Any, label_smoothing: float, chunk: int = 0
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array], Carry]:
    """Teacher-forced cross-entropy; `key` drives dropout, None means evaluation: no dropout, no smoothing.

    A carry is taken and given only where the rows are stretches of a stream. With a `chunk`, the logits of about so
    many positions are held at once.
    """
    train, fresh = key is not None, batch.fresh
    if fresh is None:
        carry = None
    else:
        carry = jax.tree.map(lambda x: jnp.where(fresh.reshape(-1, *[1] * (x.ndim - 1)), 0, x), carry)

    def judged(features: Any, targets: Any, weights: Any) -> Any:
        logits = model.apply(params, features, method="project")
        return cross_entropy(logits, targets, weights, label_smoothing if train else 0.0)

    rngs = {"dropout": key} if train else None
    features, carry = model.apply(
        params, batch.inputs, batch.prefix, carry, train=train, rngs=rngs, method="features"
    )
    found = features, batch.targets, batch.weights
    loss, weight, sums = summed_over_chunks(judged, chunk, *found) if chunk else judged(*found)
    if train:
        del sums["correct"]  # not worth a pass over the logits in every step
    return loss, weight, sums, None if fresh is None else carry


def summed_over_chunks(judged: Callable[..., Any], chunk: int, *arrays: Any) -> Any:
    """The sums that `judged` gives of arrays [B T ...], from about `chunk` positions at a time: as many of each row,
    one at least. In the backward pass each chunk is judged again. Positions that fill up the last one are zeros.
    """
    rows, length = arrays[0].shape[:2]
    width = min(max(chunk // rows, 1), length)

    def split(x: Any) -> jax.Array:
        """[B T ...] to [chunks B width ...]: rows stay whole devices' own."""
        x = jnp.pad(x, ((0, 0), (0, -length % width), *[(0, 0)] * (x.ndim - 2)))
        return x.reshape(rows, -1, width, *x.shape[2:]).swapaxes(0, 1)

    def body(sums: Any, one: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, judged(*one)), None

    chunks = tuple(split(x) for x in arrays)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(judged, *(x[0] for x in chunks)))
    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), nothing, chunks)[0]


def outputs(model: Any, params: Params, inputs: Any, key: Any = None) -> jax.Array:
    """What a model that is no generator gives; `key` drives dropout, None means evaluation."""
    return model.apply(params, inputs, train=key is not None, rngs=None if key is None else {"dropout": key})


ANSWERED = 64  # sequences answered at once


def answers(
    model: Any,
    params: Params,
    sequences: Sequence[np.ndarray],
    collate: Callable[[Sequence[np.ndarray], int, int], Tokens | Series],
) -> list[Any]:
    """The likeliest class, or classes, or the number, for each of many sequences, in batches of few shapes;
    `collate(sequences, length, rows)` pads them.
    """
    run, found = make_answer(model), []
    for at in range(0, len(sequences), ANSWERED):
        some = sequences[at : at + ANSWERED]
        length = 1 << max(max(map(len, some)) - 1, 1).bit_length()
        found += [*np.asarray(run(params, collate(some, length, ANSWERED)))[: len(some)]]
    return found


@functools.lru_cache(maxsize=16)
def make_answer(model: Any) -> Callable[..., jax.Array]:
    def answer(params: Params, inputs: Any) -> jax.Array:
        found = outputs(model, params, inputs)
        return found if found.ndim == 1 else found.argmax(-1)  # a number, or logits

    return jax.jit(answer)


def shifted(
    examples: Sequence[np.ndarray], tokenizer: TextTokenizer, length: int, count: int
) -> tuple[Tokens, np.ndarray, np.ndarray]:
    """(prefix, targets, weights) of target ids: the prefix is BOS y1 .. ym, the targets y1 .. ym EOS."""
    targets = [np.append(example, tokenizer.eos) for example in examples]
    prefixes = [np.append(tokenizer.bos, example) for example in examples]
    ids, mask = pad(targets, length, count)
    return Tokens(*pad(prefixes, length, count)), ids, mask.astype(np.float32)


def sentences_of(ids: np.ndarray, newline: int) -> np.ndarray:
    """Which sentence each token of a document is of, [... S]; a newline counts to the sentence it ends."""
    ends = ids == newline
    return (np.cumsum(ends, axis=-1) - ends).astype(np.int32)


def documents(ids: Sequence[np.ndarray], tokenizer: TextTokenizer, length: int, count: int) -> Tokens:
    """Padded documents with the sentences of their tokens; filled up with empty rows."""
    padded, mask = pad(ids, length, count)
    return Tokens(padded, mask, sentences=sentences_of(padded, tokenizer.newline))


def source_request(ids: Sequence[int] | np.ndarray, tokenizers: Tokenizers, limit: int) -> Request:
    """Asks for a text of at most `limit` tokens for a source: x1 .. xn EOS, as in `pair_batch`."""
    ended = [*map(int, ids), tokenizers["source"].eos]
    sentences = sentences_of(np.array(ended), tokenizers["source"].newline).tolist()
    return Request(ended, [tokenizers["target"].bos], limit, sentences)


def cut_source(request: Request, source: Sequence[int], most: int) -> Request:
    """The request with the first tokens of its source and EOS, `most` in all."""
    sentences = request.sentences and request.sentences[:most]
    return request._replace(source=[*source[: most - 1], source[-1]], sentences=sentences)


def pair_batch(sources: Sequence[Any], targets: Sequence[np.ndarray], rows: Rows, tokenizers: Tokenizers) -> Batch:
    """source: x1 .. xn EOS; prefix: BOS y1 .. ym; targets: y1 .. ym EOS."""
    source_length, target_length = rows.shape
    ended = [np.append(source, tokenizers["source"].eos) for source in sources]
    return Batch(
        documents(ended, tokenizers["source"], source_length, rows.rows),
        *shifted(targets, tokenizers["target"], target_length, rows.rows),
    )


def blank_batch(task: Any, rows: int = 2, length: int = 2) -> Batch:
    """Rows of ones in the structs of a task's batches: enough to build a model with, or to measure it."""
    tokens = Tokens(np.ones((rows, length), np.int32), np.ones((rows, length), bool))
    by_position, by_row = np.ones((rows, length), np.float32), np.ones(rows, np.float32)
    if task.KIND == "generator":
        return Batch(tokens if "source" in task.columns else None, tokens, tokens.ids, by_position)
    if task.KIND == "tagger":
        return Batch(tokens, None, tokens.ids, by_position)
    if task.KIND == "classifier":
        return Batch(tokens, None, by_row.astype(np.int32), by_row)
    values = np.ones((rows, length, task.features), np.float32)
    return Batch(Series(values, tokens.mask), None, by_row, by_row)
