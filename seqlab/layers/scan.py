"""A scan over positions that computes the gradient of each kernel as one product, after its backward pass."""

import functools
import string
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from seqlab.layers.dense import matrix_product

Kernels = dict[str, jax.Array]
Multiply = Callable[[str, jax.Array], jax.Array]
"""Multiplies an array [... D] by the named kernel [D G]."""
Body = Callable[[Multiply, Any, Any], tuple[Any, Any]]


def multiplier(kernels: Kernels, dtype: str) -> Multiply:
    """Returns a function that multiplies directly, for use outside of a loop."""
    return lambda name, left: multiply_kernel(left, kernels[name], dtype)


def scan(body: Body, kernels: Kernels, state: Any, xs: Any, *, dtype: str, reverse: bool = False) -> tuple[Any, Any]:
    """Runs `jax.lax.scan` on body(multiply, state, x) -> (state, y), which multiplies once by each kernel.

    By default, autodiff accumulates the gradient of a kernel within the loop: each position computes a small product
    and updates a sum as large as the kernel, which takes longer than the product. This function instead multiplies
    the operands of all positions at once, so devices also sum their gradients only once. Gradients of everything else
    that the body closes over are computed as usual. Raises `ValueError` if the body does not multiply exactly once by
    each kernel.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def measure(name: str, left: jax.Array) -> jax.Array:
        if name in shapes:
            raise ValueError(f"the body multiplies by {name!r} twice")
        shapes[name] = (*left.shape[:-1], kernels[name].shape[1])
        return multiply_kernel(left, kernels[name], dtype)

    def step(kernels: Kernels, taps: Kernels, state: Any, x: Any) -> tuple[Any, Any, Kernels]:
        operands = {}

        def multiply(name: str, left: jax.Array) -> jax.Array:
            operands[name] = left
            return tapped(left, kernels[name], taps[name], dtype)

        return *body(multiply, state, x), operands

    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    jax.eval_shape(functools.partial(body, measure), state, first)
    if shapes.keys() != kernels.keys():
        raise ValueError(f"the body multiplies by {sorted(shapes)}, but the kernels are {sorted(kernels)}")
    sums = jnp.promote_types(dtype, jnp.float32)
    taps = {name: jax.ShapeDtypeStruct(shape, sums) for name, shape in shapes.items()}
    program, shape = jax.make_jaxpr(step, return_shape=True)(kernels, taps, state, first)
    length = len(jax.tree.leaves(xs)[0])
    taps = {name: jnp.zeros((length, *tap.shape), sums) for name, tap in taps.items()}
    # The constants that the body closes over are passed as arguments, so that they receive gradients.
    return run((program.jaxpr, jax.tree.structure(shape)), dtype, reverse, kernels, taps, program.consts, state, xs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def run(step: Any, dtype: str, reverse: bool, kernels: Kernels, *arguments: Any) -> tuple[Any, Any]:
    return loop(step, reverse, kernels, *arguments)[0]


def loop(step: Any, reverse: bool, kernels: Kernels, taps: Kernels, closed: Any, state: Any, xs: Any) -> Any:
    """Returns the outputs of the loop, and the operands [T ... D] that were multiplied by each kernel."""
    program, structure = step

    def body(state: Any, inputs: Any) -> tuple[Any, Any]:
        taps, x = inputs
        outputs = eval_jaxpr(program, closed, *jax.tree.leaves((kernels, taps, state, x)))
        state, y, operands = jax.tree.unflatten(structure, outputs)
        return state, (y, operands)

    state, (ys, operands) = jax.lax.scan(body, state, (taps, xs), reverse=reverse)
    return (state, ys), operands


def _run_forward(step: Any, dtype: str, reverse: bool, kernels: Kernels, *arguments: Any) -> Any:
    outputs, pullback, operands = jax.vjp(functools.partial(loop, step, reverse, kernels), *arguments, has_aux=True)
    return outputs, (pullback, operands)


def _run_backward(step: Any, dtype: str, reverse: bool, residuals: Any, gradients: Any) -> Any:
    pullback, operands = residuals
    taps, *other_gradients = pullback(gradients)

    def gradient(left: jax.Array, right: jax.Array) -> Any:
        # Positions and rows are separate axes, so that each device multiplies its own rows. If they were one axis,
        # XLA would gather all rows on every device and multiply all of them there.
        summed = string.ascii_lowercase[: left.ndim - 1]
        return matrix_product(f"{summed}K,{summed}N->KN", left, right, dtype)

    return jax.tree.map(gradient, operands, taps), None, *other_gradients


run.defvjp(_run_forward, _run_backward)


def multiply_kernel(left: jax.Array, kernel: jax.Array, dtype: str, spec: str = "mk,kn->mn") -> jax.Array:
    result: Any = matrix_product(spec, left.reshape(-1, left.shape[-1]), kernel, dtype)
    return result.reshape(*left.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def tapped(left: jax.Array, kernel: jax.Array, tap: jax.Array, dtype: str) -> jax.Array:
    """Returns the product. Its backward pass returns the gradient of the product for `tap`, none for the kernel."""
    return multiply_kernel(left, kernel, dtype)


def _tapped_forward(left: jax.Array, kernel: jax.Array, tap: jax.Array, dtype: str):
    return multiply_kernel(left, kernel, dtype), kernel


def _tapped_backward(dtype: str, kernel: jax.Array, gradient: jax.Array):
    return multiply_kernel(gradient, kernel, dtype, "mk,nk->mn"), None, gradient


tapped.defvjp(_tapped_forward, _tapped_backward)
