"""Convolutions of several widths with a maximum over time (Kim 2014)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from seqlab.layers.convolution import shift
from seqlab.layers.dense import Dense
from seqlab.system.errors import SeqlabError


def phrase_vectors(
    x: Float[Array, "B S E"], mask: Bool[Array, "B S"], widths: Sequence[int], filters: int, dtype: str
) -> Float[Array, "B S D"]:
    """Returns the outputs of convolutions with relu that span `widths` positions, with `filters` outputs for each
    width. They are zero at pads. Raises `SeqlabError` unless there are widths of at least 1.

    Call it in a compact method, whose module owns the layers "convolutions_0", "convolutions_1", ...
    """
    if not widths or min(widths) < 1:
        raise SeqlabError(f"widths must be one or more numbers of at least 1, not {widths}")
    x, maps = jnp.where(mask[..., None], x, 0.0), []
    for i, width in enumerate(widths):
        window = jnp.concatenate([shift(x, width // 2 - j) for j in range(width)], axis=-1)
        kernel = Dense("bpf,fd->bpd", (window.shape[-1], filters), bias=True, dtype=dtype, name=f"convolutions_{i}")
        maps.append(jax.nn.relu(kernel(window)))
    return jnp.where(mask[..., None], jnp.concatenate(maps, axis=-1), 0.0)
