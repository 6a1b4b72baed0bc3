"""Weight-only quantization: matrices are stored as integers of 8 or 4 bits and scales."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from seqlab.layers.quantization import LARGEST, dequantize, pack, quantize, unpack
from seqlab.parametrizations.parametrization import WEIGHTS, Parametrization, key_of, path_of, select_matrices
from seqlab.system.checks import check_pattern, check_types
from seqlab.system.errors import SeqlabError
from seqlab.types import Params


@dataclass(frozen=True)
class Quantized(Parametrization):
    """Replaces matrices by integers and scales (see `layers/quantization.py`). The model computes with the weights
    that they stand for, in float32. In training, only the scales change.
    """

    bits: int = 8
    """Number of bits of an integer: 8 or 4."""
    pattern: str = WEIGHTS
    """Regular expression that the path of a matrix must contain."""

    def __post_init__(self) -> None:
        check_types(self, "parametrization.")
        check_bits("parametrization.bits", self.bits)
        check_pattern("parametrization.pattern", self.pattern)

    def init(self, key: jax.Array, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> Params:
        return {
            key_of(path): self.quantize_matrix(path, weights)
            for path, weights in select_matrices(base, self.pattern).items()
        }

    def quantize_matrix(self, path: str, weights: Any) -> dict[str, jax.Array]:
        """Returns the integers and scales of a matrix. Integers of 4 bits are packed if the last axis is even."""
        integers, scales = quantize(jnp.asarray(weights), path, self.bits)
        packs = self.bits == 4 and integers.shape[-1] % 2 == 0
        return {"integers": pack(integers) if packs else integers, "scales": scales}

    def replaces(self, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> frozenset[str]:
        return frozenset(select_matrices(base, self.pattern))

    def apply(self, base: Mapping[str, Any], added: Params) -> dict[str, Any]:
        return {**base, **{path_of(key): dequantize_matrix(**matrix) for key, matrix in added.items()}}


def dequantize_matrix(integers: Any, scales: Any) -> jax.Array:
    """Returns the weights of a matrix. Integers of the type uint8 are packed."""
    integers = jnp.asarray(integers)
    return dequantize(unpack(integers) if integers.dtype == jnp.uint8 else integers, jnp.asarray(scales))


def check_bits(name: str, bits: int) -> None:
    """Raises `SeqlabError`, which names the field or option, unless `bits` is 8 or 4."""
    if bits not in LARGEST:
        raise SeqlabError(f"{name} must be 8 or 4, not {bits!r}")


PARAMETRIZATION = Quantized
