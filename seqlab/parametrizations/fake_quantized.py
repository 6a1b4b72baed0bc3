"""Quantization-aware training: the model computes with rounded weights, and their gradients train the exact ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from seqlab.layers.quantization import dequantize, quantize
from seqlab.parametrizations.parametrization import WEIGHTS, Parametrization, select_matrices
from seqlab.parametrizations.quantized import check_bits
from seqlab.system.checks import check_pattern, check_types
from seqlab.types import Params


@dataclass(frozen=True)
class FakeQuantized(Parametrization):
    """Rounds matrices as `Quantized` does. The gradient passes through the rounding unchanged (straight-through
    estimator, Bengio et al. 2013; Jacob et al. 2018, section 3). `seqlab quantize` with the same number of bits
    writes a run with these rounded weights.
    """

    bits: int = 8
    """Number of bits of an integer: 8 or 4."""
    pattern: str = WEIGHTS
    """Regular expression that the path of a matrix must contain."""

    def __post_init__(self) -> None:
        check_types(self, "parametrization.")
        check_bits("parametrization.bits", self.bits)
        check_pattern("parametrization.pattern", self.pattern)

    def apply(self, base: Mapping[str, Any], added: Params) -> dict[str, Any]:
        matrices = select_matrices(base, self.pattern)
        return {
            **base,
            **{path: self.round_weights(path, jnp.asarray(weights)) for path, weights in matrices.items()},
        }

    def round_weights(self, path: str, weights: jax.Array) -> jax.Array:
        """Returns the rounded weights of a matrix, whose gradient is that of the weights."""
        fixed = jax.lax.stop_gradient(weights)
        return dequantize(*quantize(fixed, path, self.bits)) + (weights - fixed)


PARAMETRIZATION = FakeQuantized
