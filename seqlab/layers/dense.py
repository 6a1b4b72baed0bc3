"""Matrix products: operands in the compute dtype, everything else float32."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.axes import Names, declare_axes
from seqlab.system.errors import SeqlabError


def product(spec: str, left: jax.Array, right: jax.Array, dtype: str) -> jax.Array:
    """`einsum` of two arrays, rounded to `dtype` first; sums are float32 or finer, and so is the result.

    `spec` is "MK,KN->MN" or "MK,NK->MN" with any number of letters for each of M, K and N: one product of two
    matrices, and so are its gradients. (With several axes summed over, as in the gradient of a kernel, XLA on CPU
    first writes an operand anew, transposed; docs/benchmarks.md says what that took. And left to itself, autodiff
    would multiply a float32 gradient by a bfloat16 operand, which no matrix unit does.)
    Raises for other dtypes than float32 and bfloat16; where JAX has been asked for float64, that is one too.
    """
    if dtype not in ("float32", "bfloat16", jnp.result_type(float).name):
        raise SeqlabError(f"dtype must be 'float32' or 'bfloat16', not {dtype!r}")
    terms, out = spec.split("->")
    first, second = terms.split(",")
    summed = "".join(letter for letter in first if letter not in out)
    untransposed, axes = second.startswith(summed), len(first) - len(summed)
    rows, columns = out[:axes], out[axes:]
    if first != rows + summed or second != (summed + columns if untransposed else columns + summed):
        raise ValueError(f"no product of two matrices: {spec}")
    lead, inner = left.shape[:axes], math.prod(left.shape[axes:])
    trail = right.shape[len(summed) :] if untransposed else right.shape[: len(columns)]
    right = right.reshape((inner, -1) if untransposed else (-1, inner))
    result: Any = matrix_product("mk,kn->mn" if untransposed else "mk,nk->mn", left.reshape(-1, inner), right, dtype)
    return result.reshape(*lead, *trail)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def matrix_product(spec: str, left: jax.Array, right: jax.Array, dtype: str) -> Any:
    sums = jnp.promote_types(dtype, jnp.float32)
    return jnp.einsum(spec, left.astype(dtype), right.astype(dtype), preferred_element_type=sums)


def _forward(spec: str, left: jax.Array, right: jax.Array, dtype: str):
    return matrix_product(spec, left, right, dtype), (left, right)


def _backward(spec: str, dtype: str, operands: tuple[jax.Array, jax.Array], gradient: jax.Array):
    """Each letter stands in two of the three terms, so that the terms in another order give the gradients."""
    left, right = operands
    terms, out = spec.split("->")
    a, b = terms.split(",")
    of_left = matrix_product(f"{out},{b}->{a}", gradient, right, dtype)
    return of_left, matrix_product(f"{a},{out}->{b}", left, gradient, dtype)


matrix_product.defvjp(_forward, _backward)


class Dense(nn.Module):
    """A learned linear map, "btd,dhe->bthe" say: an input's axes, the kernel's, the output's.

    `shape` is the kernel's; it is drawn Glorot uniform of the map seen as one plain matrix, or normal.
    """

    spec: str
    shape: tuple[int, ...]
    bias: bool = False
    dtype: str = "float32"
    deviation: float | None = None
    """Standard deviation of a kernel that is drawn normal."""
    axes: Names | None = None
    """The names of the kernel's axes (see `layers/axes.py`). None: "inputs", and other axes stay whole."""

    def setup(self):
        terms, out = self.spec.split("->")
        letters = terms.split(",")[1]
        axes = range(len(letters))
        names = self.axes or tuple(None if letter in out else "inputs" for letter in letters)
        declare_axes(self, "kernel", names, sum(letter not in out for letter in letters))
        initializer = nn.initializers.variance_scaling(
            1.0,
            "fan_avg",
            "uniform",
            in_axis=[i for i in axes if letters[i] not in out],
            out_axis=[i for i in axes if letters[i] in out],
        )
        if self.deviation is not None:
            initializer = nn.initializers.normal(self.deviation)
        self.kernel = self.param("kernel", initializer, self.shape)
        if self.bias:
            shape = [self.shape[i] for i in axes if letters[i] in out]
            self.added = self.param("bias", nn.initializers.zeros, shape)
            kept = [names[i] for i in axes if letters[i] in out]
            declare_axes(self, "bias", tuple(None if name == "outputs" else name for name in kept))

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        y = product(self.spec, x, self.kernel, self.dtype)
        return y + self.added if self.bias else y
