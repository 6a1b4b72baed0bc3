"""Rounding of matrices to small integers, against loops in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.layers.quantization import BLOCK, LARGEST, dequantize, pack, quantize, spread, unpack

SHAPES = (("query/kernel", (70, 2, 5)), ("out/kernel", (2, 40, 80)), ("inner/kernel", (6, 90)), ("table", (9, 70)))


def outputs_of(path: str, weights: np.ndarray) -> np.ndarray:
    """Returns a matrix as [outputs, weights of each]: the rows of a table, the columns of an output of attention
    [H E D], and the other axes of other kernels [D ...].
    """
    if path == "table":
        return weights
    rows = weights.shape[0] * weights.shape[1] if path == "out/kernel" else weights.shape[0]
    return weights.reshape(rows, -1).T


def blocks_of(path: str, row: np.ndarray, bits: int) -> list[np.ndarray]:
    """Returns the weights of an output that share a scale: with 4 bits, equal blocks of those of a head."""
    if bits == 8:
        return [row]
    parts = np.split(row, 2) if path == "out/kernel" else [row]
    return [block for part in parts for block in equal_blocks(part)]


def equal_blocks(part: np.ndarray) -> list[np.ndarray]:
    width = int(np.ceil(len(part) / np.ceil(len(part) / BLOCK)))
    return [part[i : i + width] for i in range(0, len(part), width)]


@pytest.mark.parametrize(("path", "shape"), SHAPES)
@pytest.mark.parametrize("bits", [8, 4])
def test_as_in_numpy(bits, path, shape):
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    integers, scales = quantize(jnp.asarray(weights), path, bits)
    assert integers.dtype == jnp.int8
    restored = outputs_of(path, np.asarray(dequantize(integers, scales)))
    for row, restored_row in zip(outputs_of(path, weights), restored, strict=True):
        expected = []
        for block in blocks_of(path, row, bits):
            scale = max(abs(float(weight)) for weight in block) / LARGEST[bits]
            expected += [round(float(weight) / scale) * scale for weight in block]
            assert np.abs(np.array(expected[-len(block) :]) - block).max() <= scale / 2 * (1 + 1e-5)
        np.testing.assert_allclose(restored_row, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_error_is_at_most_half_a_scale(bits):
    """The largest weight of each block keeps its value, and so does zero."""
    weights = np.random.default_rng(1).normal(size=(64, 16)).astype(np.float32) * np.logspace(-6, 6, 16, dtype="f4")
    weights[3], weights[:, 5] = 0, 0
    integers, scales = quantize(jnp.asarray(weights), "kernel", bits)
    restored, scale = np.asarray(dequantize(integers, scales)), np.asarray(spread(scales, weights.shape))
    assert (np.abs(restored - weights) <= scale / 2 * (1 + 1e-5)).all()
    assert np.abs(integers).max() == LARGEST[bits]
    assert not restored[weights == 0].any()
    assert np.isfinite(restored).all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("path", "shape"), SHAPES)
def test_rounding_again_changes_nothing(path, shape, bits):
    weights = jnp.asarray(np.random.default_rng(2).normal(size=shape).astype(np.float32))
    integers, scales = quantize(weights, path, bits)
    again, _ = quantize(dequantize(integers, scales), path, bits)
    np.testing.assert_array_equal(again, integers)


def test_two_integers_share_a_byte():
    integers = np.array([[-7, 7, 0, -1], [1, -8, 3, 5]], np.int8)
    packed = pack(jnp.asarray(integers))
    assert packed.dtype == jnp.uint8
    np.testing.assert_array_equal(packed, [[0x79, 0xF0], [0x81, 0x53]])
    np.testing.assert_array_equal(unpack(packed), integers)


def test_all_pairs_are_unpacked():
    pairs = np.array([(low, high) for low in range(-8, 8) for high in range(-8, 8)], np.int8)
    packed = np.asarray(pack(jnp.asarray(pairs)))
    assert len(np.unique(packed)) == 256
    np.testing.assert_array_equal(unpack(jnp.asarray(packed)), pairs)
