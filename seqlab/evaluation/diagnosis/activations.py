"""Statistics of what each layer computes: its size, dead units and saturated gates."""

import dataclasses
import functools
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core.tracers import current_trace
from jaxtyping import Array, Bool, Float, Int

from seqlab.data.batches import SIDES, sides_of
from seqlab.layers.recurrent import Recurrent
from seqlab.training.step import LossFunction
from seqlab.types import Context, Params

BOUNDS = {"gate": (0.1, 0.9), "tanh": (-0.99, 0.99)}  # saturated beyond; gates: Karpathy et al. 2015, section 4.2


def activations(loss: LossFunction, params: Params, batch: Any) -> dict[str, dict[str, float]]:
    """Returns statistics of the output of each layer over the real positions: its root mean square, the share of
    units that are zero at all of them (dead units of a ReLU), and for gates and a tanh the share of saturated values.
    """
    return jax.tree.map(float, jax.device_get(measure(loss, params, batch)))


@functools.partial(jax.jit, static_argnums=0)
def measure(loss: LossFunction, params: Params, batch: Any) -> dict[str, dict[str, jax.Array]]:
    rows = batch.weights.reshape(len(batch.weights), -1).any(1)
    masks = {"row": rows}
    for name, tokens in sides_of(batch).items():
        masks[SIDES[name]] = tokens.mask & rows[:, None]
    sides = sides_of_layers(loss, params, batch)
    return OrderedDict(  # JAX sorts the keys of a dict, but not of an OrderedDict
        (name, statistics(x, masks[sides[name]], BOUNDS.get(name.rpartition(" ")[2])))
        for name, x in outputs_of_layers(loss, params, batch).items()
        if name in sides
    )


def statistics(
    x: Float[Array, "..."], real: Bool[Array, "..."], bounds: tuple[float, float] | None = None
) -> dict[str, jax.Array]:
    """Returns the statistics of an array. Its first axes are those of `real`; the others are units."""
    x = x.reshape(*real.shape, -1)
    real = real[..., None]
    values = jnp.maximum(real.sum() * x.shape[-1], 1)
    result = {
        "rms": jnp.sqrt(jnp.where(real, x * x, 0.0).sum() / values),
        "dead": ((x == 0) | ~real).all(tuple(range(real.ndim - 1))).mean(),
    }
    if bounds is not None:
        low, high = bounds
        result["saturated"] = (((x < low) | (x > high)) & real).sum() / values
    return result


def sides_of_layers(loss: LossFunction, params: Params, batch: Any) -> dict[str, str]:
    """Returns for each layer whether its output has a vector for each position of the "source", of the "target", or
    for each "row"; other layers are left out. The shapes for two different lengths of the sides decide it.
    """

    def shapes(source: int, target: int) -> dict[str, tuple[int, ...]]:
        resized = batch_of_lengths(batch, source, target)
        outputs = jax.eval_shape(functools.partial(outputs_of_layers, loss), params, resized)
        return {name: x.shape for name, x in outputs.items()}

    sides = {}
    for (name, shape), swapped_shape in zip(shapes(2, 3).items(), shapes(3, 2).values(), strict=True):
        side = {(2, 3): "source", (3, 2): "target"}.get((shape[1], swapped_shape[1]))
        if side is not None and len(shape) > 2:
            sides[name] = side
        elif shape == swapped_shape and len(shape) == 2:
            sides[name] = "row"
    return sides


def batch_of_lengths(batch: Any, source: int, target: int) -> Any:
    """Returns the shapes of a batch whose sides have the lengths `source` and `target`. The number of targets changes
    in proportion, unless it does not depend on the length.
    """
    sides, lengths = sides_of(batch), {"inputs": source, "prefix": target}
    *_, (last, last_side) = sides.items()

    def resized(length: int, x: Any) -> Any:
        return jax.ShapeDtypeStruct((len(x), length, *x.shape[2:]), x.dtype)

    def resized_answers(x: Any) -> Any:
        times, remainder = divmod(x.shape[1], last_side.mask.shape[1]) if x.ndim > 1 else (0, 0)
        return resized(times * lengths[last], x) if times and not remainder else x

    answers = jax.tree.map(resized_answers, dataclasses.replace(batch, **dict.fromkeys(sides)))
    new_sides = {name: jax.tree.map(functools.partial(resized, lengths[name]), side) for name, side in sides.items()}
    return dataclasses.replace(answers, **new_sides)


def outputs_of_layers(loss: LossFunction, params: Params, batch: Any) -> dict[str, jax.Array]:
    """Returns the outputs of the modules in a forward pass, by path: vectors for rows or positions, and the gates of
    recurrent layers. Outputs inside a loop, and outputs that a module returns unchanged, are not recorded.
    """
    outputs: dict[str, jax.Array] = {}
    calls: Counter[str] = Counter()
    outside, recording = current_trace(), True

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal recording
        result = call(*args, **kwargs)
        module = context.module
        if not recording or context.method_name not in ("__call__", "embed") or current_trace() != outside:
            return result
        x = result[0] if isinstance(result, tuple) else result
        if x.ndim < 2 or any(x is output for output in outputs.values()):
            return result
        path = ".".join(module.path) or type(module).__name__
        calls[path] += 1
        name = path if calls[path] == 1 else f"{path} ({calls[path]})"
        outputs[f"{name} tanh" if isinstance(module, Recurrent) and module.cell == "rnn" else name] = x
        if isinstance(module, Recurrent):
            recording = False
            outputs.update(
                {f"{name} {gate} gate": y for gate, y in gates(module, args[0], x, *args[2:], **kwargs).items()}
            )
            recording = True
        return result

    with nn.intercept_methods(record):
        loss(params, batch, Context())
    return outputs


def gates(
    layer: Recurrent,
    x: Float[Array, "B T F"],
    h: Float[Array, "B T D"],
    state: Any = None,
    *,
    segments: Int[Array, "B T"] | None = None,
    reverse: bool = False,
) -> dict[str, Float[Array, "B T D"]]:
    """Returns the sigmoids of an LSTM or a GRU at all positions, recomputed from the input x and the output h."""
    names = {"lstm": "ifgo", "gru": "rz"}.get(layer.cell, "")
    if not names:
        return {}
    begin = (layer.initial(len(x)) if state is None else state)[0][:, None]
    before = jnp.concatenate([h[:, 1:], begin] if reverse else [begin, h[:, :-1]], axis=1)
    if segments is not None:
        fresh = segments != jnp.roll(segments, -1 if reverse else 1, axis=1)
        before = jnp.where(fresh[..., None], 0.0, before)
    width = len(names) * layer.dim
    u = layer.multiplier()("recurrent" if layer.reset == "after" else "gates", before)
    u = layer.recurrent_norm(u) if layer.layer_norm else u
    values = jax.nn.sigmoid(layer.project(x)[..., :width] + u[..., :width])
    return {name: y for name, y in zip(names, jnp.split(values, len(names), axis=-1), strict=True) if name != "g"}
