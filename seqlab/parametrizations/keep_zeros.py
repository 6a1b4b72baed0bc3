"""Training of a pruned model: weights that are exactly zero stay zero."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from seqlab.parametrizations.parametrization import KERNELS, Parametrization, select_matrices
from seqlab.system.checks import check_pattern, check_types
from seqlab.types import Params


@dataclass(frozen=True)
class KeepZeros(Parametrization):
    """Gives weights of exactly zero no gradient, so that no optimizer changes them. Start from a pruned run, with
    --init-from. To prune in several rounds (Han et al. 2015; Zhu & Gupta 2017), prune the result again.
    """

    pattern: str = KERNELS
    """Regular expression that the path of a matrix must contain."""

    def __post_init__(self) -> None:
        check_types(self, "parametrization.")
        check_pattern("parametrization.pattern", self.pattern)

    def apply(self, base: Mapping[str, Any], added: Params) -> dict[str, Any]:
        matrices = select_matrices(base, self.pattern)
        return {**base, **{path: jnp.where(weights == 0, 0.0, weights) for path, weights in matrices.items()}}


PARAMETRIZATION = KeepZeros
