"""The trainable and the frozen parameters of a model: two trees that share no leaf."""

import re
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

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
