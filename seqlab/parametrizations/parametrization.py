"""The contract of a parametrization: small trees of parameters that change those of a model."""

import abc
from collections.abc import Mapping
from typing import Any

import jax

from seqlab.types import Params


class Parametrization(abc.ABC):
    """A frozen dataclass, in a file of its own. A state holds the base parameters and the added ones, and by default
    only the added ones are trained. Decoding and evaluation see the parameters that `apply` gives.
    """

    @abc.abstractmethod
    def init(self, key: jax.Array, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> Params:
        """Returns the added parameters, a tree of dicts whose keys contain no "/", given the base parameters by path.

        `input_axes` maps the path of each parameter whose layer declares axes to the number of leading axes that its
        product sums over.
        """

    @abc.abstractmethod
    def apply(self, base: Mapping[str, Any], added: Params) -> dict[str, Any]:
        """Returns the parameters that the model is applied with, by path. A pure function."""
