"""Compares convolutions with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.layers.convolution import Convolution, GatedBlock, TCNBlock, WaveNetBlock, run_over_all
from seqlab.models.conv_seq2seq import ConvSeq2Seq
from seqlab.readers.words import Words
from seqlab.types import Tokens
from tests.layers.test_recurrent import jiggled
from tests.oracles import layers as oracle


def of(p, taps=None):
    """Returns the kernel and bias of a dense layer, or of a convolution with `taps` taps."""
    if taps is None:
        return np.asarray(p["kernel"]), np.asarray(p["bias"])
    kernel, bias = np.asarray(p["kernel"]), np.asarray(p["bias"])
    if "gain" in p:
        return oracle.weight_normed(kernel, np.asarray(p["gain"]), taps), bias
    return kernel.reshape(taps, -1, len(bias)), bias


@pytest.mark.parametrize(
    ("kernel", "dilation", "weight_norm"), [(3, 1, False), (2, 4, True), (1, 1, True), (4, 3, False)]
)
def test_causal_convolution(kernel, dilation, weight_norm):
    """Checks all positions at once, and single steps after prompts of several lengths."""
    random = np.random.default_rng(0)
    x = jnp.float32(random.normal(size=(2, 7, 3)))
    layer = Convolution(3, 5, kernel, dilation, weight_norm=weight_norm)
    params = jiggled(layer.init(jax.random.key(0), x))
    result = layer.apply(params, x)
    for row in range(2):
        expected = oracle.causal_convolution(np.asarray(x)[row], *of(params["params"], kernel), dilation)
        np.testing.assert_allclose(result[row], expected, rtol=1e-4, atol=1e-5)
    for past in (0, 2, 6):
        buffer = jnp.repeat(layer.apply(params, x[:, :past], method="start")[:, None], 2, axis=1)
        for t in range(past, 7):
            y, buffer = layer.apply(
                params, jnp.repeat(x[:, t : t + 1], 2, axis=1), buffer, jnp.int32(t), method="step"
            )
            np.testing.assert_allclose(y[:, 1], result[:, t], rtol=1e-4, atol=1e-5)


def test_segments_are_not_mixed():
    x = jnp.float32(np.random.default_rng(0).normal(size=(1, 6, 3)))
    segments = jnp.array([[1, 1, 2, 2, 2, 0]])
    layer = Convolution(3, 4, 3)
    params = layer.init(jax.random.key(0), x)
    result = layer.apply(params, x, segments)
    for part in (slice(0, 2), slice(2, 5)):
        np.testing.assert_allclose(result[:, part], layer.apply(params, x[:, part]), rtol=1e-5, atol=1e-6)


def test_a_convolution_that_looks_ahead():
    """A convolution with `ahead` 2 equals the causal one, shifted by two positions on a row padded with two zeros."""
    x = jnp.float32(np.random.default_rng(0).normal(size=(2, 6, 3)))
    causal, ahead = Convolution(3, 4, 3, 2), Convolution(3, 4, 3, 2, ahead=2)
    params = causal.init(jax.random.key(0), x)
    expected = causal.apply(params, jnp.pad(x, ((0, 0), (0, 2), (0, 0))))[:, 2:]
    np.testing.assert_allclose(ahead.apply(params, x), expected, rtol=1e-5, atol=1e-6)


LENGTHS = (7, 1, 4)
MASK = jnp.asarray(np.arange(7) < np.array(LENGTHS)[:, None])


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            TCNBlock(3, 5, 2, 2, 0.0),
            lambda x, p: oracle.tcn_block(x, of(p["first"], 2), of(p["second"], 2), of(p["shortcut"]), 2),
        ),
        (TCNBlock(3, 3, 3, 1, 0.0), lambda x, p: oracle.tcn_block(x, of(p["first"], 3), of(p["second"], 3), None, 1)),
        (WaveNetBlock(3, 2, 2, 0.0), lambda x, p: oracle.wavenet_block(x, of(p["convolution"], 2), of(p["out"]), 2)),
        (GatedBlock(3, 3, 1, 0, 0.0), lambda x, p: oracle.gated_block(x, of(p["convolution"], 3), 1)),
        (GatedBlock(3, 3, 2, 2, 0.0), lambda x, p: oracle.gated_block(x, of(p["convolution"], 3), 2, 2)),
    ],
)
def test_blocks(block, expected):
    """The outputs of each row do not depend on its pads."""
    x = jnp.float32(np.random.default_rng(0).normal(size=(3, 7, 3)))
    params = jiggled(block.init(jax.random.key(0), x, run_over_all(MASK)))
    result = block.apply(params, x, run_over_all(MASK))
    for row, length in enumerate(LENGTHS):
        jax.tree.map(
            lambda a, b, i=row, n=length: np.testing.assert_allclose(a[i, :n], b, rtol=1e-4, atol=1e-5),
            result,
            expected(np.asarray(x)[row, :length], params["params"]),
        )


def test_conv_seq2seq():
    random = np.random.default_rng(0)
    model = ConvSeq2Seq(Words(9), vocabulary=7, encoder_layers=2, decoder_layers=2, dim=6, tie="none")
    inputs = Tokens(jnp.asarray(random.integers(3, 9, (3, 7))), MASK)
    prefix = Tokens(jnp.asarray(random.integers(3, 7, (3, 7))), MASK[::-1])
    params = jiggled(model.init(jax.random.key(0), inputs, prefix, train=False, method="features"))
    result, _ = model.apply(params, inputs, prefix, train=False, method="features")
    p = params["params"]
    encoder = [of(p[f"encoder_{i}"]["convolution"], 3) for i in range(2)]
    decoder = [(of(p[f"decoder_{i}"]["convolution"], 3), of(p[f"query_{i}"]), of(p[f"mix_{i}"])) for i in range(2)]
    for row in range(3):
        s, t = LENGTHS[row], LENGTHS[2 - row]
        words = p["reader"]["words"]["table"][inputs.ids[row, :s]], p["words"]["table"][prefix.ids[row, :t]] * 6**0.5
        positions = p["source_positions"]["table"][:s], p["target_positions"]["table"][:t]
        embedded = [0.1 * np.asarray(word + position) for word, position in zip(words, positions, strict=True)]
        expected = oracle.conv_seq2seq(*embedded, encoder, decoder)
        np.testing.assert_allclose(result[row, :t], expected, rtol=1e-4, atol=1e-5)
