"""The training step, as a pure function."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from seqlab.runs.trainable import merge, split
from seqlab.training.averages import Average
from seqlab.types import Carry, Context, Loss, Params, Reference, TrainState

STEP_SUMS = ("loss", "weight", "gradient_norm", "steps")  # the sums of every step; a loss may add others
LossFunction = Callable[[Params, Any, Context], Loss]  # of parameters and a batch


def make_step(
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    seed: int,
    axis: str | None = None,
    *,
    accumulate: int = 1,
    average: Average | None = None,
    skip: bool = False,
    trainable: str = "",
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns `step(state, batch) -> (state, {"finite": ...})`.

    Gradients are taken of the summed loss. Gradients and weights are summed over the devices of `axis` (None: one
    program has the whole batch) and over the `accumulate` parts in which a batch is processed, and divided once at
    the end. Every weight therefore counts the same, whichever device its row is on. `average` updates the average
    of the parameters, if there is one. With `skip`, a step with a loss or gradient that is not finite changes only
    the step number. Parameters that the pattern `trainable` does not match are not differentiated and stay
    bit-identical.
    """

    def gradients_of(references: Any, params: Params, batch: Any, carry: Carry, key: jax.Array) -> Any:
        """Returns (gradients of the trainable parameters, sums, carry) for rows of a batch."""
        trained, frozen = split(params, trainable)

        def objective(trained: Params) -> Any:
            value = loss(merge(trained, frozen), batch, Context(key, carry, references))
            return value.sum, ({"loss": value.sum, "weight": value.weight, **value.sums}, value.carry)

        gradients, (sums, after) = jax.grad(objective, has_aux=True)(trained)
        return gradients, sums, after

    def averaged(update: Average, state: TrainState, trained: Params, frozen: Params) -> Params:
        old, _ = split(state.average, trainable)
        return merge(update(old, trained, state.step), frozen)

    def step(
        state: TrainState, batch: Any, references: dict[str, Reference] | None = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        gradients_of_rows = functools.partial(gradients_of, references or {})
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        if accumulate == 1:
            gradients, sums, carry = gradients_of_rows(state.params, batch, state.carry, key)
        else:
            gradients, sums, carry = accumulate_gradients(
                gradients_of_rows, accumulate, state.params, batch, state.carry, key
            )
        if axis is not None:
            gradients, sums = jax.lax.psum((gradients, sums), axis)
        gradients = jax.tree.map(lambda g: g / jnp.maximum(sums["weight"], 1.0), gradients)
        trained, frozen = split(state.params, trainable)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, trained)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(norm) & jnp.isfinite(sums["loss"])
        sums = {**sums, "gradient_norm": norm, "steps": jnp.float32(1)}
        trained = optax.apply_updates(trained, updates)
        after = TrainState(
            step=state.step + 1,
            params=merge(trained, frozen),
            optimizer=optimizer_state,
            carry=carry,
            sums=jax.tree.map(jnp.add, state.sums, sums),
            average=None if average is None else averaged(average, state, trained, frozen),
        )
        if skip:
            after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state).replace(step=after.step)
        return after, {"finite": finite}

    return step


def accumulate_gradients(
    gradients_of: Callable[..., Any], parts: int, params: Params, batch: Any, carry: Carry, key: jax.Array
) -> Any:
    """Returns the results of `gradients_of`, summed over parts of the batch.

    Part i has the rows i, i + parts, ..., so that rows that are sharded over devices stay on their devices.
    """

    def split_rows(tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), tree)

    def add(total: Any, part: Any) -> Any:
        rows, part_carry, number = part
        gradients, sums, after = gradients_of(params, rows, part_carry, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, (gradients, sums)), after

    stacked = split_rows(batch), split_rows(carry), jnp.arange(parts)
    first = jax.tree.map(lambda x: x[0], stacked)
    shapes = jax.eval_shape(
        lambda rows, part_carry, n: gradients_of(params, rows, part_carry, jax.random.fold_in(key, n)), *first
    )
    (gradients, sums), after = jax.lax.scan(add, zeros_like(shapes[:2]), stacked)
    merged = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), after)
    return gradients, sums, merged


def zeros_like(shapes: Any) -> Any:
    """Returns zeros with the shapes and dtypes of a tree, for example the initial carry."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
