"""Losses: cross-entropy, and the teacher-forced loss of generators, optionally in chunks of positions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context, Loss, Params


def cross_entropy(
    logits: Float[Array, "*N V"],
    targets: Int[Array, "*N"],
    weights: Float[Array, "*N"],
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns (loss sum, weight sum, {"nll": sum, "correct": sum}) over weighted positions, in nats.

    With label smoothing e, the target distribution has 1 - e on the target, and e is spread over the vocabulary
    (Szegedy et al. 2016). "nll" is without smoothing.
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
    """Returns the log-sum-exp and the logit of the target. Their gradient takes one pass over the logits."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1), chosen


def _forward(logits: jax.Array, targets: jax.Array):
    normalizer, chosen = normalizer_and_chosen(logits, targets)
    return (normalizer, chosen), (logits, targets, normalizer)


def _backward(residuals: tuple[jax.Array, jax.Array, jax.Array], gradients: tuple[jax.Array, jax.Array]):
    logits, targets, normalizer = residuals
    of_all, of_chosen = (g[..., None] for g in gradients)
    is_target = targets[..., None] == jnp.arange(logits.shape[-1])
    return of_all * jnp.exp(logits - normalizer[..., None]) + jnp.where(is_target, of_chosen, 0.0), None


normalizer_and_chosen.defvjp(_forward, _backward)


def generator_loss(
    model: Any, params: Params, batch: Batch, context: Context, label_smoothing: float, chunk: int = 0
) -> Loss:
    """Returns the teacher-forced cross-entropy. Labels are smoothed in training, when the context has a key.

    A carry is read and returned only if the rows are segments of streams. With `chunk`, the logits of about `chunk`
    positions are in memory at once.
    """
    train, fresh, carry = context.key is not None, batch.fresh, None
    if fresh is not None:
        carry = jax.tree.map(lambda x: jnp.where(fresh.reshape(-1, *[1] * (x.ndim - 1)), 0, x), context.carry)

    def sums_of_chunk(features: Any, targets: Any, weights: Any) -> Any:
        logits = model.apply(params, features, method="project")
        return cross_entropy(logits, targets, weights, label_smoothing if train else 0.0)

    rngs = {"dropout": context.key} if train else None
    features, carry = model.apply(
        params, batch.inputs, batch.prefix, carry, train=train, rngs=rngs, method="features"
    )
    arrays = features, batch.targets, batch.weights
    loss, weight, sums = sum_over_chunks(sums_of_chunk, chunk, *arrays) if chunk else sums_of_chunk(*arrays)
    if train:
        del sums["correct"]  # not worth an extra pass over the logits in every step
    return Loss(loss, weight, sums, None if fresh is None else carry)


def tagger_loss(model: Any, params: Params, batch: Batch, context: Context) -> Loss:
    """Returns the cross-entropy of the labels of positions. Raises `SeqlabError` if the model does not tag every
    position.
    """
    logits = model_outputs(model, params, batch.inputs, context.key)
    if logits.shape[:2] != batch.targets.shape:
        raise SeqlabError(
            f"{type(model).__name__} has {logits.shape[1]} outputs for {batch.targets.shape[1]} positions: use an "
            "encoder with one output per position"
        )
    return Loss(*cross_entropy(logits, batch.targets, batch.weights))


def sum_over_chunks(sums_of_chunk: Callable[..., Any], chunk: int, *arrays: Any) -> Any:
    """Returns the total of the sums that `sums_of_chunk` returns for arrays [B T ...], about `chunk` positions at a
    time: the same number in each row, at least one. The last chunk is padded with zeros. The backward pass recomputes
    each chunk.
    """
    rows, length = arrays[0].shape[:2]
    width = min(max(chunk // rows, 1), length)

    def split(x: Any) -> jax.Array:
        """Reshapes [B T ...] to [chunks B width ...], so that rows remain on their devices."""
        x = jnp.pad(x, ((0, 0), (0, -length % width), *[(0, 0)] * (x.ndim - 2)))
        return x.reshape(rows, -1, width, *x.shape[2:]).swapaxes(0, 1)

    def body(sums: Any, chunk_arrays: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, sums_of_chunk(*chunk_arrays)), None

    chunks = tuple(split(x) for x in arrays)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sums_of_chunk, *(x[0] for x in chunks))
    )
    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), zeros, chunks)[0]


def model_outputs(model: Any, params: Params, inputs: Any, key: Any = None) -> jax.Array:
    """Returns the outputs of a model that is not a generator. `key` is the dropout key; None means evaluation."""
    rngs = None if key is None else {"dropout": key}
    return model.apply(params, inputs, train=key is not None, rngs=rngs, method="outputs")
