"""Hashes of trees of arrays."""

import hashlib
from typing import Any

import jax
import numpy as np


def digest_of(tree: Any) -> str:
    """Returns the SHA-256 of the leaves of a tree: sorted paths, dtypes, shapes and little-endian bytes."""
    digest = hashlib.sha256()
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for name, leaf in sorted(
        ((jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves), key=lambda x: x[0]
    ):
        little = leaf.astype(leaf.dtype.newbyteorder("<")) if leaf.dtype.byteorder == ">" else leaf
        digest.update(f"{name} {leaf.dtype.name} {leaf.shape}\n".encode() + little.tobytes())
    return digest.hexdigest()
