"""A loop over positions whose kernels get their gradients from one product each, when it has gone back."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqlab.layers.dense import matrix_product

Kernels = dict[str, jax.Array]
Multiply = Callable[[str, jax.Array], jax.Array]
"""An array [... D] times the kernel [D G] of a name."""
Body = Callable[[Multiply, Any, Any], tuple[Any, Any]]


def multiplier(kernels: Kernels, dtype: str) -> Multiply:
    """Products as ever, outside of a loop."""
    return lambda name, left: multiplied(left, kernels[name], dtype)


def scan(body: Body, kernels: Kernels, state: Any, xs: Any, *, dtype: str, reverse: bool = False) -> tuple[Any, Any]:
    """`jax.lax.scan` of body(multiply, state, x) -> (state, y), which multiplies once by each of the kernels.

    Left to itself, autodiff adds a kernel's gradient up within the loop: at every position a small product, and a
    pass over a sum as large as the kernel, which takes longer than the product does. Here the operands of all
    positions are multiplied at once, and several devices add their sums once. What else the body closes over has its
    gradient as ever. What is multiplied has the leading axes of the state's leaves.
    """

    def step(kernels: Kernels, taps: Kernels, state: Any, x: Any) -> tuple[Any, Any, Kernels]:
        operands = {}

        def multiply(name: str, left: jax.Array) -> jax.Array:
            operands[name] = left
            return tapped(left, kernels[name], taps[name], dtype)

        return *body(multiply, state, x), operands

    length, lead = len(jax.tree.leaves(xs)[0]), jax.tree.leaves(state)[0].shape[:-1]
    taps = {name: jnp.zeros((length, *lead, kernel.shape[1])) for name, kernel in kernels.items()}
    first = jax.tree.map(lambda x: jnp.zeros_like(x, shape=x.shape[1:]), (taps, xs))  # there may be no position
    step, closed = jax.closure_convert(step, kernels, first[0], state, first[1])
    return run(step, dtype, reverse, kernels, taps, closed, state, xs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def run(step: Any, dtype: str, reverse: bool, kernels: Kernels, *rest: Any) -> tuple[Any, Any]:
    return loop(step, reverse, kernels, *rest)[0]


def loop(step: Any, reverse: bool, kernels: Kernels, taps: Kernels, closed: Any, state: Any, xs: Any) -> Any:
    """What the loop gives, and of each kernel what it multiplied, [T ... D]."""

    def body(state: Any, now: Any) -> tuple[Any, Any]:
        taps, x = now
        state, y, operands = step(kernels, taps, state, x, *closed)
        return state, (y, operands)

    state, (ys, operands) = jax.lax.scan(body, state, (taps, xs), reverse=reverse)
    return (state, ys), operands


def _run_forward(step: Any, dtype: str, reverse: bool, kernels: Kernels, *rest: Any) -> Any:
    found, back, operands = jax.vjp(functools.partial(loop, step, reverse, kernels), *rest, has_aux=True)
    return found, (back, operands)


def _run_backward(step: Any, dtype: str, reverse: bool, kept: Any, gradients: Any) -> Any:
    back, operands = kept
    taps, *rest = back(gradients)

    def gradient(left: jax.Array, right: jax.Array) -> Any:
        flat = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
        return matrix_product("mk,mn->kn", *flat, dtype)

    return jax.tree.map(gradient, operands, taps), None, *rest


run.defvjp(_run_forward, _run_backward)


def multiplied(left: jax.Array, kernel: jax.Array, dtype: str, spec: str = "mk,kn->mn") -> jax.Array:
    found: Any = matrix_product(spec, left.reshape(-1, left.shape[-1]), kernel, dtype)
    return found.reshape(*left.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def tapped(left: jax.Array, kernel: jax.Array, tap: jax.Array, dtype: str) -> jax.Array:
    """The product. What comes back for `tap` is the product's own gradient, and for the kernel nothing."""
    return multiplied(left, kernel, dtype)


def _tapped_forward(left: jax.Array, kernel: jax.Array, tap: jax.Array, dtype: str):
    return multiplied(left, kernel, dtype), kernel


def _tapped_backward(dtype: str, kernel: jax.Array, gradient: jax.Array):
    return multiplied(gradient, kernel, dtype, "mk,nk->mn"), None, gradient


tapped.defvjp(_tapped_forward, _tapped_backward)
