"""The interface of parametrizations: small trees of parameters that modify the parameters of a model."""

import abc
from collections.abc import Mapping
from typing import Any

import jax

from seqlab.types import Params


class Parametrization(abc.ABC):
    """The base class of parametrizations. A parametrization is a frozen dataclass in a separate file. The training
    state contains the base and the added parameters; by default only the added ones are trained. Decoding and
    evaluation use the parameters that `apply` returns.
    """

    @abc.abstractmethod
    def init(self, key: jax.Array, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> Params:
        """Returns the added parameters, a tree of dicts whose keys contain no "/", given the base parameters by path.

        `input_axes` maps the path of each parameter whose layer declares axes to the number of leading axes that its
        product sums over.
        """

    @abc.abstractmethod
    def apply(self, base: Mapping[str, Any], added: Params) -> dict[str, Any]:
        """Returns the parameters of the model by path. Must be a pure function."""
