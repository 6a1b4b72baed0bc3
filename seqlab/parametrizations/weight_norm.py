"""Weight normalization (Salimans & Kingma 2016): the direction and the norm of each weight vector are trained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from seqlab.parametrizations.parametrization import (
    KERNELS,
    Parametrization,
    input_count,
    key_of,
    path_of,
    select_matrices,
)
from seqlab.system.checks import check_pattern, check_types
from seqlab.types import Params


@dataclass(frozen=True)
class WeightNorm(Parametrization):
    """Replaces the weights of each output channel by g v / |v|, equation 2 of the paper. At the start, v are the
    weights and g is their norm, so that values equal the base's. All other parameters are trained as usual. The
    weights of a channel that is zero remain zero.
    """

    pattern: str = KERNELS
    """Regular expression that the path of a matrix must contain."""

    trains_base = True

    def __post_init__(self) -> None:
        check_types(self, "parametrization.")
        check_pattern("parametrization.pattern", self.pattern)

    def init(self, key: jax.Array, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> Params:
        added = {}
        for path, weights in select_matrices(base, self.pattern).items():
            count = input_count(path, weights, input_axes)
            added[key_of(path)] = {"direction": weights, "norm": channel_norms(weights, count)}
        return added

    def replaces(self, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> frozenset[str]:
        return frozenset(select_matrices(base, self.pattern))

    def apply(self, base: Mapping[str, Any], added: Params) -> dict[str, Any]:
        matrices = {path_of(key): scale_directions(**matrix) for key, matrix in added.items()}
        return {**base, **matrices}


def scale_directions(direction: Any, norm: Any) -> jax.Array:
    """Returns the weights with the direction `direction` and the norm `norm` of each output channel."""
    direction = jnp.asarray(direction)
    norms = channel_norms(direction, direction.ndim - norm.ndim)
    return direction * (norm / jnp.where(norms > 0, norms, 1.0))


def channel_norms(weights: Any, count: int) -> jax.Array:
    """Returns the norm of the weights of each output channel: over the leading `count` axes. The gradient of a
    norm of 0 is 0.
    """
    rows = math.prod(weights.shape[:count])
    squares = jnp.square(jnp.asarray(weights)).reshape(rows, *weights.shape[count:]).sum(0)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


PARAMETRIZATION = WeightNorm
