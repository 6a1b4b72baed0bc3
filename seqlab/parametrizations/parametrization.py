"""The interface of parametrizations: small trees of parameters that modify the parameters of a model."""

import abc
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from seqlab.system.errors import SeqlabError
from seqlab.types import Params

KERNELS = "(kernel|recurrent)$"  # the matrices of products
WEIGHTS = "(kernel|recurrent|table)$"  # and the embedding tables


class Parametrization(abc.ABC):
    """The base class of parametrizations. A parametrization is a frozen dataclass in a separate file. The training
    state contains the base and the added parameters; by default only the added ones are trained, or the base if the
    class defines no `init`. Decoding and evaluation use the parameters that `apply` returns.
    """

    trains_base: ClassVar[bool] = False
    """Whether the base is trained too by default, if the class defines `init`."""

    def init(self, key: jax.Array, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> Params:
        """Returns the added parameters, a tree of dicts whose keys contain no "/" (see `key_of`), given the base
        parameters by path. Training starts from this base. By default nothing is added.

        `input_axes` maps the path of each parameter whose layer declares axes to the number of leading axes that its
        product sums over. Integer arrays are never trained.
        """
        return {}

    def replaces(self, base: Mapping[str, Any], input_axes: Mapping[str, int]) -> frozenset[str]:
        """Returns the paths of the base parameters that the added ones replace. The state and its checkpoints do not
        contain them. By default none.
        """
        return frozenset()

    @abc.abstractmethod
    def apply(self, base: Mapping[str, Any], added: Params) -> dict[str, Any]:
        """Returns all parameters of the model by path, given those of the base that are not replaced. Must be a pure
        function.
        """


def select_matrices(base: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """Returns, in order of their paths, the parameters with two or more axes whose path contains a match of a regular
    expression. Raises `SeqlabError` if there is none.
    """
    selected = {path: base[path] for path in sorted(base) if base[path].ndim > 1 and re.search(pattern, path)}
    if not selected:
        matrices = [path for path in sorted(base) if base[path].ndim > 1]
        examples = ", ".join(matrices[:3]) or "none"
        raise SeqlabError(f"the pattern {pattern!r} matches no matrix of this model; examples of paths: {examples}")
    return selected


def input_count(path: str, weights: Any, input_axes: Mapping[str, int]) -> int:
    """Returns the number of leading axes of a matrix that its product sums over. Raises `SeqlabError` if it has more
    than two axes and its layer does not declare them.
    """
    if weights.ndim == 2:
        return 1
    if path not in input_axes:
        raise SeqlabError(f"{path} has {weights.ndim} axes, but its layer does not declare them: call declare_axes")
    return input_axes[path]


def key_of(path: str) -> str:
    """Returns the key of the added parameters of a base parameter, given its path: keys contain no "/"."""
    return path.replace("/", ".")


def path_of(key: str) -> str:
    """Returns the path of the base parameter whose key is `key`."""
    return key.replace(".", "/")
