"""Matrices as small integers and scales: symmetric rounding to 8 or 4 bits.

An integer q stands for the weight q s. The scale s of a block of weights is their largest magnitude, divided by 127
or 7, the largest integer. With 8 bits, the weights of an output of a product, or of a row of an embedding table, are
a block (symmetric per-channel quantization, Krishnamoorthi 2018, section 3). A row of a tied table is an output, too:
a logit. With 4 bits, these weights are divided into blocks of at most 32, and two integers share a byte.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, Integer, UInt8

LARGEST = {8: 127, 4: 7}  # the largest integer, by the number of bits
BLOCK = 32  # maximum number of weights that share a scale of 4 bits


def scale_shape(path: str, shape: tuple[int, ...], bits: int) -> tuple[int, ...]:
    """Returns the shape of the scales of a matrix: the number of blocks along each of its axes.

    A product sums over the last axis of an embedding table, whose path ends with "table". It sums over the first axis
    of other matrices, or over all but the last axis if the last is longer, as in the output of attention [H E D].
    """
    last = len(shape) - 1
    if path.endswith("table"):
        summed = (last,)
    else:
        summed = (0,) if shape[0] >= shape[last] else tuple(range(last))
    if bits == 8:
        return tuple(1 if axis in summed else size for axis, size in enumerate(shape))
    return tuple(-(-size // BLOCK) if axis == summed[-1] else size for axis, size in enumerate(shape))


def quantize(weights: Float[Array, "..."], path: str, bits: int) -> tuple[Int8[Array, "..."], Float[Array, "..."]]:
    """Returns the integers, in the shape of the weights, and the scales of a matrix. The scale of zeros is 1."""
    largest = block_maxima(jnp.abs(weights), scale_shape(path, weights.shape, bits))
    scales = largest / LARGEST[bits]
    scales = jnp.where(scales > 0, scales, 1.0)
    return jnp.round(weights / spread(scales, weights.shape)).astype(jnp.int8), scales


def dequantize(integers: Integer[Array, "..."], scales: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the weights that integers and scales stand for."""
    return integers * spread(scales, integers.shape)


def block_maxima(magnitudes: Float[Array, "..."], blocks: tuple[int, ...]) -> Float[Array, "..."]:
    """Returns the maximum of each block. `blocks` has their number along each axis. The last may be smaller."""
    for axis, count in enumerate(blocks):
        size = magnitudes.shape[axis]
        width = -(-size // count)
        padding = [(0, count * width - size if i == axis else 0) for i in range(magnitudes.ndim)]
        padded = jnp.pad(magnitudes, padding)
        magnitudes = padded.reshape(*padded.shape[:axis], count, width, *padded.shape[axis + 1 :]).max(axis + 1)
    return magnitudes


def spread(scales: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Returns the scale of each weight of a matrix of this shape. Axes with a single block have the size 1."""
    for axis, size in enumerate(shape):
        count = scales.shape[axis]
        if 1 < count < size:
            scales = jax.lax.slice_in_dim(jnp.repeat(scales, -(-size // count), axis), 0, size, axis=axis)
    return scales


def pack(integers: Int8[Array, "... N"]) -> UInt8[Array, "... M"]:
    """Returns two integers of 4 bits per byte, M = N / 2: the first of each pair in the lower half."""
    pairs = integers.astype(jnp.uint8).reshape(*integers.shape[:-1], -1, 2) & 15
    return pairs[..., 0] | pairs[..., 1] << 4


def unpack(packed: UInt8[Array, "... M"]) -> Int8[Array, "... N"]:
    """Returns the integers of `pack`."""
    halves = jnp.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
    return (halves ^ 8).astype(jnp.int8) - jnp.int8(8)
