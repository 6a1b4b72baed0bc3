"""Matrix products with operands in the compute dtype; everything else is float32."""

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
    """Returns the `einsum` of two arrays after rounding them to `dtype`. Sums and the result are float32 or wider.

    `spec` is "MK,KN->MN" or "MK,NK->MN" with any number of letters for each of M, K and N. The operation is one
    product of two matrices, and so are its gradients. (With several summed axes, as in the gradient of a kernel, XLA
    on CPU first writes a transposed copy of an operand; docs/benchmarks.md has measurements. By default, autodiff
    would multiply a float32 gradient by a bfloat16 operand, which no matrix unit supports.)
    Raises `SeqlabError` unless `dtype` is float32, bfloat16 or, if JAX has float64 enabled, float64.
    """
    if dtype not in ("float32", "bfloat16", jnp.result_type(float).name):
        raise SeqlabError(f"dtype must be 'float32' or 'bfloat16', not {dtype!r}")
    terms, out = spec.split("->")
    first, second = terms.split(",")
    summed = "".join(letter for letter in first if letter not in out)
    untransposed, axes = second.startswith(summed), len(first) - len(summed)
    rows, columns = out[:axes], out[axes:]
    if first != rows + summed or second != (summed + columns if untransposed else columns + summed):
        raise ValueError(f"not a product of two matrices: {spec}")
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
    """Computes the gradients by permuting the terms, since each letter occurs in two of the three terms."""
    left, right = operands
    terms, out = spec.split("->")
    a, b = terms.split(",")
    of_left = matrix_product(f"{out},{b}->{a}", gradient, right, dtype)
    return of_left, matrix_product(f"{a},{out}->{b}", left, gradient, dtype)


matrix_product.defvjp(_forward, _backward)


class Dense(nn.Module):
    """A learned linear map. `spec`, such as "btd,dhe->bthe", names the axes of the input, the kernel and the output.

    `shape` is the shape of the kernel. It is initialized Glorot uniform, for the map as one matrix, or normal.
    """

    spec: str
    shape: tuple[int, ...]
    bias: bool = False
    dtype: str = "float32"
    deviation: float | None = None
    """Standard deviation of a normally initialized kernel; None: Glorot uniform."""
    axes: Names | None = None
    """Names of the kernel's axes (see `layers/axes.py`). None: "inputs" for summed axes; other axes are not split."""

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
