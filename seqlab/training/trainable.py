"""The trainable and the frozen parameters of a model: two trees that share no leaf."""

import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab.distributed.sharding import name_of
from seqlab.system.errors import SeqlabError
from seqlab.types import Params


def split(params: Params, pattern: str) -> tuple[Params, Params]:
    """Returns the trainable and the frozen parameters. A parameter is trainable if the regular expression `pattern`
    matches a part of its path, such as "params/encoder/stack_0/self_attention/query/kernel". An empty pattern matches
    all. With a pattern, arrays of integers are frozen even if it matches their paths.
    """
    if not pattern:
        return params, {}
    leaves = flatten_dict(params, sep="/")
    trainable = {path: leaf for path, leaf in leaves.items() if re.search(pattern, path) and is_floating(leaf)}
    frozen = {path: leaf for path, leaf in leaves.items() if path not in trainable}
    return unflatten_dict(trainable, sep="/"), unflatten_dict(frozen, sep="/")


def is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def merge(trainable: Params, frozen: Params) -> Params:
    """Merges the two trees that `split` returns."""
    if not frozen:
        return trainable
    return unflatten_dict(flatten_dict(trainable, sep="/") | flatten_dict(frozen, sep="/"), sep="/")


def check_patterns(params: Params, option: str, patterns: Iterable[str]) -> None:
    """Raises `SeqlabError` if a pattern matches no parameter."""
    paths = list(flatten_dict(params, sep="/"))
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise SeqlabError(
                f"{option}: {pattern!r} matches no parameter; examples of paths: {', '.join(paths[:3])}"
            )


def scale_updates(rates: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """Multiplies the updates of each parameter by the factor of the first pattern that matches its path, if any."""

    def factor(path: Any) -> float:
        return next((rate for pattern, rate in rates if re.search(pattern, name_of(path))), 1.0)

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(lambda path, u: factor(path) * u, updates)
    )
