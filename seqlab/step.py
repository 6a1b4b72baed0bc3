"""One training step: pure, with the loss injected."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from seqlab.types import AnyArray, Carry, Params

# loss(params, batch, carry, key) -> (loss_sum, weight_sum, metric_sums, carry); key None: no dropout
Loss = Callable[[Params, Any, Carry, Any], tuple[jax.Array, jax.Array, dict[str, jax.Array], Carry]]


@struct.dataclass
class TrainState:
    """All that training changes. `sums` adds up the metrics since the log was last written."""

    step: AnyArray
    params: Params
    optimizer: Any
    carry: Carry
    sums: dict[str, AnyArray]


def zeros_like(shapes: Any) -> Any:
    """Zeros of the shapes and dtypes of a tree: what a carry is at first."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def make_step(
    loss: Loss, optimizer: optax.GradientTransformation, seed: int, axis: str | None = None
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """`step(state, batch) -> (state, metrics)`.

    Gradients are of the loss's sum. Sums and weights are added over the devices of `axis` (None: one program
    sees the whole batch) and divided once, last, so every weight counts alike however rows fall on devices.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))

        def objective(params: Params) -> Any:
            loss_sum, weight, sums, carry = loss(params, batch, state.carry, key)
            return loss_sum, ({"loss": loss_sum, "weight": weight, **sums}, carry)

        gradients, (sums, carry) = jax.grad(objective, has_aux=True)(state.params)
        if axis is not None:
            gradients, sums = jax.lax.psum((gradients, sums), axis)
        gradients = jax.tree.map(lambda g: g / jnp.maximum(sums["weight"], 1.0), gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        norm = optax.tree.norm(gradients)
        metrics = {"finite": jnp.isfinite(norm) & jnp.isfinite(sums["loss"])}
        sums = {**sums, "gradient_norm": norm, "steps": jnp.float32(1)}
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            optimizer=optimizer_state,
            carry=carry,
            sums=jax.tree.map(jnp.add, state.sums, sums),
        )
        return state, metrics

    return step
