"""Gradients over time: how far back the gradient of a loss reaches."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.data.batches import SIDES, sides_of
from seqlab.layers.embed import Embedding, TiedEmbedding
from seqlab.training.step import LossFunction, zeros_like
from seqlab.types import Context, Frames, Params, Tokens

VANISHED = 1e-3  # share of a gradient at the far end, below which it moves no parameter
BEFORE, AFTER = "at initialization", "after the steps"


class Reach(NamedTuple):
    """The gradient of a loss by place. `norms` are its norms by place, from 0. `factor` is the fitted factor per
    place, and `left` the factor over the whole distance. Both are NaN if nothing can be fitted.
    """

    norms: np.ndarray
    factor: float
    left: float
    verdict: str


def gradients_over_time(
    loss: LossFunction, params: Params, batch: Any, places: Int[np.ndarray, "B M"] | None = None
) -> dict[str, Reach]:
    """Returns the norms of d loss / d embedding, or d loss / d numbers, as means over the rows. The loss is that of
    the last target of each row only, or of its single answer, without dropout. `places` are the positions of the
    targets, if there is not one target per row or position.

    "target" and "source" are by positions back from that target; "encoder's source", the source of an encoder, is by
    position from its beginning. Empty if the embeddings come from neither an `Embedding` nor a `TiedEmbedding`.
    """
    last, batch = last_targets(batch, places)
    norms = jax.device_get(entry_gradients(loss, params, batch))
    weights = np.asarray(batch.weights).reshape(len(last), -1)
    reaches, sides = {}, sides_of(batch)
    for name, tokens in sides.items():
        side = SIDES[name]
        if side not in norms:
            continue
        real = np.asarray(tokens.mask) & weights.any(1, keepdims=True)
        positions = np.arange(real.shape[1])
        if side == "source" and "prefix" in sides:
            reaches["encoder's source"] = reach(by_place(norms[side], np.where(real, positions, -1)), "the end")
            continue
        segments = getattr(tokens, "segments", None)
        if segments is not None:
            real = real & (segments == np.take_along_axis(np.asarray(segments), last[:, None], axis=1))
        reaches[side] = reach(by_place(norms[side], np.where(real, last[:, None] - positions, -1)))
    return reaches


def last_targets(batch: Any, places: Int[np.ndarray, "B M"] | None = None) -> tuple[Int[np.ndarray, "B"], Any]:
    """Returns the position of the last target of each row, and the batch with zero weights for all other targets.

    If `places` start over within a row, as those of next and previous tokens do, the last target before that counts.
    """
    weights, sides = np.asarray(batch.weights), sides_of(batch)
    if places is None:
        if sides.keys() == {"inputs"} and weights.shape[1:] != batch.inputs.mask.shape[1:]:
            return np.asarray(batch.inputs.mask).sum(1) - 1, batch
        places = np.broadcast_to(np.arange(weights.shape[1]), weights.shape)
    before = np.cumsum(np.diff(places, axis=1, prepend=0) < 0, axis=1) == 0
    last = weights.shape[1] - 1 - ((weights > 0) & before)[:, ::-1].argmax(1)[:, None]
    weights = weights * (np.arange(weights.shape[1]) == last)
    return np.take_along_axis(places, last, axis=1)[:, 0], dataclasses.replace(batch, weights=weights)


@functools.partial(jax.jit, static_argnums=0)
def entry_gradients(loss: LossFunction, params: Params, batch: Any) -> dict[str, Float[Array, "B T"]]:
    """Returns the norms of the gradient with respect to the inputs of the model, by side and position."""
    ids = {SIDES[name]: tokens.ids for name, tokens in sides_of(batch).items() if isinstance(tokens, Tokens)}

    def run(replace_input: Callable[[str, jax.Array], jax.Array]) -> jax.Array:
        """Returns the loss, with `replace_input(side, x)` in place of each input x."""

        def replace_embedded(
            call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
        ) -> Any:
            embedded = call(*args, **kwargs)
            if isinstance(context.module, Embedding | TiedEmbedding):
                for side, side_ids in ids.items():
                    if args and args[0] is side_ids:
                        return replace_input(side, embedded)
            return embedded

        inputs = batch.inputs
        if isinstance(inputs, Frames):
            inputs = dataclasses.replace(inputs, values=replace_input("source", inputs.values))
        with nn.intercept_methods(replace_embedded):
            return loss(params, dataclasses.replace(batch, inputs=inputs), Context())[0]

    shapes: dict[str, Any] = {}

    def record_shape(side: str, x: jax.Array) -> jax.Array:
        shapes[side] = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return x

    jax.eval_shape(functools.partial(run, record_shape))
    gradients = jax.grad(lambda by: run(lambda side, x: x + by[side]))(zeros_like(shapes))
    return jax.tree.map(norms_of, gradients)


def norms_of(x: Float[Array, "... D"]) -> Float[Array, "..."]:
    """Returns norms over the last axis, also of values whose squares underflow."""
    largest = jnp.abs(x).max(-1, keepdims=True)
    return jnp.linalg.norm(x / jnp.where(largest > 0, largest, 1.0), axis=-1) * largest[..., 0]


def by_place(norms: Float[np.ndarray, "B T"], places: Int[np.ndarray, "B T"]) -> Float[np.ndarray, "N"]:
    """Returns the mean norm at each place. Places below 0 are left out."""
    present = places >= 0
    return np.bincount(places[present], norms[present]) / np.maximum(np.bincount(places[present]), 1)


def reach(norms: Float[np.ndarray, "N"], far: str = "") -> Reach:
    """Fits a line through the logarithms of norms by least squares. Places without a gradient are left out; if the
    far end has none, `left` is 0.
    """
    positions = np.flatnonzero(norms > 0)
    if len(positions) < 2 or not np.isfinite(norms).all():
        return Reach(norms, math.nan, math.nan, "unknown")
    slope = float(np.polyfit(positions, np.log(norms[positions]), 1)[0])
    left = math.exp(np.clip(slope * (len(norms) - 1), -700, 700)) if norms[-1] > 0 else 0.0
    verdict = "it reaches the first position"
    if left < VANISHED:
        verdict = f"vanishing{far and f' towards {far}'}"
    elif left > 1 / VANISHED:
        verdict = "vanishing towards the beginning" if far else "exploding"
    return Reach(norms, math.exp(slope), left, verdict)


def leaf_names(params: Params) -> list[str]:
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    return [jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("params.") for path in paths]
