"""Convolutions against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.layers.convolution import Convolution
from tests.oracles import layers as oracle


@pytest.mark.parametrize(
    ("kernel", "dilation", "weight_norm"), [(3, 1, False), (2, 4, True), (1, 1, True), (4, 3, False)]
)
def test_causal_convolution(kernel, dilation, weight_norm):
    """All positions of a row shorter than the reach and of a longer one; and step by step after a few."""
    random = np.random.default_rng(0)
    x = jnp.float32(random.normal(size=(2, 7, 3)))
    layer = Convolution(3, 5, kernel, dilation, weight_norm=weight_norm)
    params = jax.tree.map(
        lambda p: p + random.normal(size=p.shape).astype(np.float32), layer.init(jax.random.key(0), x)
    )
    p = jax.tree.map(np.asarray, params["params"])
    weights = p["kernel"]
    if weight_norm:
        weights = weights * p["gain"] / np.sqrt((weights**2).sum(axis=0))
    found = layer.apply(params, x)
    for row in range(2):
        expected = oracle.causal_convolution(np.asarray(x)[row], weights.reshape(kernel, 3, 5), p["bias"], dilation)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)
    for past in (0, 2, 6):
        buffer = jnp.repeat(layer.apply(params, x[:, :past], method="start")[:, None], 2, axis=1)
        for t in range(past, 7):
            y, buffer = layer.apply(
                params, jnp.repeat(x[:, t : t + 1], 2, axis=1), buffer, jnp.int32(t), method="step"
            )
            np.testing.assert_allclose(y[:, 1], found[:, t], rtol=1e-4, atol=1e-5)


def test_segments_are_not_mixed():
    x = jnp.float32(np.random.default_rng(0).normal(size=(1, 6, 3)))
    segments = jnp.array([[1, 1, 2, 2, 2, 0]])
    layer = Convolution(3, 4, 3)
    params = layer.init(jax.random.key(0), x)
    found = layer.apply(params, x, segments)
    for part in (slice(0, 2), slice(2, 5)):
        np.testing.assert_allclose(found[:, part], layer.apply(params, x[:, part]), rtol=1e-5, atol=1e-6)


def test_a_convolution_that_looks_ahead():
    """Two ahead is the causal one on a row with two zeros behind it, two positions later."""
    x = jnp.float32(np.random.default_rng(0).normal(size=(2, 6, 3)))
    causal, ahead = Convolution(3, 4, 3, 2), Convolution(3, 4, 3, 2, ahead=2)
    params = causal.init(jax.random.key(0), x)
    expected = causal.apply(params, jnp.pad(x, ((0, 0), (0, 2), (0, 0))))[:, 2:]
    np.testing.assert_allclose(ahead.apply(params, x), expected, rtol=1e-5, atol=1e-6)
