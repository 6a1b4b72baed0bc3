"""Matrix products: operands in the compute dtype, everything else float32."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.errors import SeqlabError


def product(spec: str, left: jax.Array, right: jax.Array, dtype: str) -> jax.Array:
    """`einsum` of two arrays, rounded to `dtype` first; sums are float32 or finer, and so is the result.

    The gradients are products of the same kind: each letter of `spec` must stand in two of its three terms, so that
    the terms in another order give them. (Left to itself, autodiff would multiply a float32 gradient by a bfloat16
    operand, which no matrix unit does.) Raises for other dtypes than float32 and bfloat16; where JAX has been asked
    for float64, that is one too.
    """
    if dtype not in ("float32", "bfloat16", jnp.result_type(float).name):
        raise SeqlabError(f"dtype must be 'float32' or 'bfloat16', not {dtype!r}")
    return _product(spec, left, right, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _product(spec: str, left: jax.Array, right: jax.Array, dtype: str) -> Any:
    sums = jnp.promote_types(dtype, jnp.float32)
    return jnp.einsum(spec, left.astype(dtype), right.astype(dtype), preferred_element_type=sums)


def _forward(spec: str, left: jax.Array, right: jax.Array, dtype: str):
    return product(spec, left, right, dtype), (left, right)


def _backward(spec: str, dtype: str, operands: tuple[jax.Array, jax.Array], gradient: jax.Array):
    left, right = operands
    terms, out = spec.split("->")
    a, b = terms.split(",")
    return product(f"{out},{b}->{a}", gradient, right, dtype), product(f"{a},{out}->{b}", left, gradient, dtype)


_product.defvjp(_forward, _backward)


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

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        terms, out = self.spec.split("->")
        letters = terms.split(",")[1]
        axes = range(len(letters))
        initializer = nn.initializers.variance_scaling(
            1.0,
            "fan_avg",
            "uniform",
            in_axis=[i for i in axes if letters[i] not in out],
            out_axis=[i for i in axes if letters[i] in out],
        )
        if self.deviation is not None:
            initializer = nn.initializers.normal(self.deviation)
        y = product(self.spec, x, self.param("kernel", initializer, self.shape), self.dtype)
        if self.bias:
            shape = [self.shape[i] for i in axes if letters[i] in out]
            y += self.param("bias", nn.initializers.zeros, shape)
        return y
