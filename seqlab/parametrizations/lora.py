"""Low-rank adapters (Hu et al. 2022): W + (alpha / rank) A B for each matrix that a pattern selects."""

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
from seqlab.system.checks import check_minimum, check_nonnegative, check_pattern, check_types
from seqlab.types import Params


@dataclass(frozen=True)
class Lora(Parametrization):
    """A is initialized at random and B with zeros, so a new adapter changes nothing. A kernel of more than two axes
    counts as the matrix of its product. Rank and alpha default to those of PEFT.
    """

    rank: int = 8
    """Rank of the change of each matrix."""
    alpha: float = 8.0
    """Scale of the change, which is divided by the rank."""
    pattern: str = KERNELS
    """Regular expression that the path of a matrix must contain, such as "(query|value)/kernel$"."""

    def __post_init__(self) -> None:
        check_types(self, "parametrization.")
        check_minimum("parametrization.rank", self.rank, 1)
        check_nonnegative("parametrization.alpha", self.alpha)
        check_pattern("parametrization.pattern", self.pattern)

    def init(self, key: jax.Array, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> Params:
        added, places = {}, {path: i for i, path in enumerate(sorted(base))}
        for path, weights in select_matrices(base, self.pattern).items():
            count = input_count(path, weights, input_axes)
            rows, columns = math.prod(weights.shape[:count]), math.prod(weights.shape[count:])
            a = jax.random.normal(jax.random.fold_in(key, places[path]), (rows, self.rank)) * rows**-0.5
            added[key_of(path)] = {"a": a, "b": jnp.zeros((self.rank, columns))}
        return added

    def apply(self, base: Mapping[str, Any], added: Params) -> dict[str, Any]:
        scale, changed = self.alpha / self.rank, dict(base)
        for key, pair in added.items():
            path = path_of(key)
            changed[path] = base[path] + (scale * pair["a"] @ pair["b"]).reshape(base[path].shape)
        return changed


PARAMETRIZATION = Lora
