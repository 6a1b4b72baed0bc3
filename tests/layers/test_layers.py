"""Compares layers with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.laws.subject import LENGTHS, passes
from seqlab.layers.attention import Alignment, Attention, causal_mask, slot_mask
from seqlab.layers.dense import Dense, product
from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import Positions, positions_of, sinusoidal
from seqlab.layers.hierarchy import Pool, members
from seqlab.layers.losses import cross_entropy
from seqlab.layers.nesting import with_fields
from seqlab.layers.norm import LayerNorm
from seqlab.layers.transformer import Layer
from seqlab.types import Tokens
from tests.layers.test_recurrent import jiggled
from tests.oracles import layers as oracle
from tests.subjects import batch_of, subject

RANDOM = np.random.default_rng(0)


def test_attention():
    x, memory = RANDOM.normal(size=(3, 5, 6)), RANDOM.normal(size=(3, 7, 6))
    mask = RANDOM.random((3, 5, 7)) < 0.5
    mask[0, 2] = False  # fully masked: zeros
    layer = Attention(dim=6, heads=3)

    def run(module):
        return module.attend(jnp.float32(x), *module.keys_values(jnp.float32(memory)), jnp.asarray(mask))[0]

    result, params = layer.init_with_output(jax.random.key(0), method=run)
    kernels = [np.asarray(params["params"][name]["kernel"]) for name in ("query", "key", "value", "out")]
    for row in range(3):
        expected = oracle.attention(*kernels, x[row], memory[row], mask[row])
        np.testing.assert_allclose(result[row], expected, rtol=1e-4, atol=1e-6)
    assert not np.asarray(result)[0, 2].any()


@pytest.mark.parametrize("score", ["additive", "dot", "general", "scaled"])
def test_alignment(score):
    width = 4 if score in ("additive", "general") else 6
    query, memory = RANDOM.normal(size=(2, 3, 6)), RANDOM.normal(size=(2, 5, width))
    layer = Alignment(score, 6, width)

    def run(module):
        return module.scores(jnp.float32(query), module.keys(jnp.float32(memory)))

    result, params = layer.init_with_output(jax.random.key(0), method=run)
    params = jax.tree.map(lambda x: jnp.float32(x + RANDOM.normal(size=x.shape)), params)
    result = layer.apply(params, method=run)
    p = params.get("params", {})
    weights = (
        p.get("query", {}).get("kernel"),
        p.get("query", {}).get("bias"),
        p.get("key", {}).get("kernel"),
        p.get("vector"),
    )
    for row in range(2):
        for k in range(3):
            expected = oracle.alignment(score, query[row, k], memory[row], weights)
            np.testing.assert_allclose(result[row, k], expected, rtol=1e-4, atol=1e-5)


def test_dot_attention_wants_equal_widths():
    with pytest.raises(
        ValueError, match="dot attention needs queries and memory of the same width, not 6 and 4: use general"
    ):
        Alignment("dot", 6, 4).init(jax.random.key(0), jnp.ones((1, 2, 4)), method="keys")
    with pytest.raises(ValueError, match="'dot', 'general' or 'scaled', not 'loud'"):
        Alignment("loud", 6, 4).init(jax.random.key(0), jnp.ones((1, 2, 4)), method="keys")


def test_attention_wants_a_divisible_width():
    with pytest.raises(ValueError, match="must be divisible by the number of heads, 3"):
        Attention(dim=8, heads=3).init(jax.random.key(0), jnp.ones((1, 2, 8)), method="keys_values")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", ["btd,dhe->bthe", "bthe,hed->btd", "bd,vd->bv"])
def test_product_and_its_gradients(spec, dtype):
    sizes = dict(zip("abtdhev", (3, 5, 4, 6, 2, 7, 9), strict=True))
    terms, out = spec.split("->")
    left, right, weight = (RANDOM.normal(size=[sizes[c] for c in term]) for term in (*terms.split(","), out))

    def rounded(x):
        return np.asarray(jnp.asarray(x, dtype), np.float64)

    a, b, g = rounded(left), rounded(right), rounded(weight)
    result, pull = jax.vjp(lambda x, y: product(spec, x, y, dtype), jnp.float32(left), jnp.float32(right))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, np.einsum(spec, a, b), rtol=1e-5, atol=1e-5)
    first, second = pull(jnp.float32(weight))
    left_term, right_term = terms.split(",")
    np.testing.assert_allclose(first, np.einsum(f"{out},{right_term}->{left_term}", g, b), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second, np.einsum(f"{left_term},{out}->{right_term}", a, g), rtol=1e-5, atol=1e-5)


def test_dense_is_drawn_glorot_uniform():
    layer = Dense("bthe,hed->btd", (4, 50, 100), bias=True)
    params = layer.init(jax.random.key(0), jnp.ones((1, 1, 4, 50)))["params"]
    bound = (6 / (4 * 50 + 100)) ** 0.5
    assert 0.99 * bound < abs(np.asarray(params["kernel"])).max() <= bound
    assert params["bias"].shape == (100,)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", catalogue.names("models"))
def test_bfloat16_is_close(name):
    s = subject(name)
    exact = np.asarray(s.forward(s.params, s.inputs, s.prefix))
    rounded = np.asarray(passes(with_fields(s.model, dtype="bfloat16"))[0](s.params, s.inputs, s.prefix))
    gap = abs(exact - rounded).max() / abs(exact).max()
    assert 1e-5 < gap < 0.05, gap


@pytest.mark.parametrize("adapter", [0, 3])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_transformer_layer(norm, adapter):
    x, memory = RANDOM.normal(size=(3, 5, 6)), RANDOM.normal(size=(3, 7, 6))
    mask, memory_mask = RANDOM.random((3, 5, 5)) < 0.5, RANDOM.random((3, 7)) < 0.5
    layer = Layer(dim=6, heads=2, hidden=8, dropout=0.0, inner_dropout=0.0, norm=norm, cross=True, adapter=adapter)

    def run(module):
        keys_values = module.encode_memory(jnp.float32(memory))
        return module(jnp.float32(x), jnp.asarray(mask), keys_values, jnp.asarray(memory_mask)[:, None])[0]

    params = jiggled(layer.init(jax.random.key(0), method=run))
    result, p = layer.apply(params, method=run), jax.tree.map(np.asarray, params["params"])
    own, cross = (
        [p[name][part]["kernel"] for part in ("query", "key", "value", "out")]
        for name in ("self_attention", "cross_attention")
    )
    norms = [(p[name]["scale"], p[name]["bias"]) for name in ("self_norm", "cross_norm", "feed_forward_norm")]

    def dense(layers):
        return [(layers[name]["kernel"], layers[name]["bias"]) for name in ("inner", "outer")]

    blocks = ("self", "cross", "feed_forward") if adapter else ()
    adapters = [dense(p[f"{block}_adapter"]["bottleneck"]) for block in blocks]
    weights = (own, cross, norms, adapters, *dense(p["feed_forward"]))
    for row in range(3):
        expected = oracle.transformer_layer(x[row], memory[row], mask[row], memory_mask[row], norm == "post", weights)
        np.testing.assert_allclose(result[row], expected, rtol=1e-4, atol=1e-5)


def test_sentences_are_pooled():
    """Covers sentences with several words, one word and no words, and sentences merged into the last one."""
    sentences = jnp.array([[0, 0, 1, 3, 4, 4, 7, 9], [1, 1, 1, 0, 0, 0, 0, 0]])
    mask = jnp.array([[True] * 7 + [False], [True] * 3 + [False] * 5])
    parts = members(Tokens(jnp.zeros_like(sentences), mask, sentences=sentences), 5)
    assert np.asarray(parts)[0].astype(int).tolist() == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 0],
    ]
    assert np.asarray(parts)[1].sum(axis=1).tolist() == [0, 3, 0, 0, 0]
    x, layer = jnp.float32(RANDOM.normal(size=(2, 8, 4))), Pool(6)
    params = jiggled(layer.init(jax.random.key(0), x, parts))
    p = jax.tree.map(np.asarray, params["params"])
    for row in range(2):
        hidden = p["hidden"]["kernel"], p["hidden"]["bias"]
        expected = oracle.pool(np.asarray(x)[row], np.asarray(parts)[row], hidden, p["vector"])
        np.testing.assert_allclose(layer.apply(params, x, parts)[row], expected, rtol=1e-4, atol=1e-5)


def test_causal_mask():
    mask = causal_mask(jnp.array([[True, True, False], [False, True, True]]))
    assert np.asarray(mask).astype(int).tolist() == [
        [[1, 0, 0], [1, 1, 0], [1, 1, 0]],
        [[0, 0, 0], [0, 1, 0], [0, 1, 1]],
    ]


def test_slot_mask():
    """A hypothesis attends to the slots of its ancestors, from the start of the prompt to the current position."""
    ancestors = jnp.array([[[0, 0, 1, 0], [0, 1, 0, 0]]])  # [B=1 K=2 T=4]
    mask = slot_mask(ancestors, jnp.array([1]), jnp.int32(2))
    assert np.asarray(mask).astype(int).tolist() == [[[0, 0, 1, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0]]]


def test_layer_norm():
    x = RANDOM.normal(size=(4, 3, 5)) * 7 + 3
    scale, bias = RANDOM.normal(size=5), RANDOM.normal(size=5)
    result = LayerNorm().apply({"params": {"scale": jnp.float32(scale), "bias": jnp.float32(bias)}}, jnp.float32(x))
    np.testing.assert_allclose(result, oracle.layer_norm(x, scale, bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 6, 64])
def test_sinusoidal(dim):
    result = sinusoidal(jnp.array([0, 1, 17, 300]), dim)
    expected = np.stack([oracle.sinusoidal(position, dim) for position in (0, 1, 17, 300)])
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_positions_of():
    mask = jnp.array([[False, False, True, True], [True, True, True, False], [False] * 4])
    assert positions_of(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2], [0, 0, 0, 0]]


def test_learned_positions_end():
    layer = Positions("learned", 5, 3)
    params = layer.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    layer.apply(params, 3, method="check_length")
    with pytest.raises(ValueError, match=r"raise model\.max_length"):
        layer.apply(params, 4, method="check_length")


@pytest.mark.parametrize(("kind", "dim", "message"), [("rotary", 4, "sinusoidal"), ("sinusoidal", 5, "even")])
def test_positions_refuse(kind, dim, message):
    with pytest.raises(ValueError, match=message):
        Positions(kind, dim, 3).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(rate):
    x = jnp.ones((50, 40, 37))
    result = np.asarray(Dropout(rate).apply({}, x, train=True, rngs={"dropout": jax.random.key(3)}))
    kept = 1 - round(rate * 256) / 256
    assert set(np.unique(result).tolist()) == {0.0, np.float32(1 / kept).item()}
    assert abs((result > 0).mean() - kept) < 5 * np.sqrt(kept * (1 - kept) / result.size)


def test_dropout_refuses_everything():
    with pytest.raises(ValueError, match=r"between 0 and 0.998"):
        Dropout(1.0).apply({}, jnp.ones((2, 2)), train=True, rngs={"dropout": jax.random.key(0)})


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing):
    logits = RANDOM.normal(size=(3, 4, 7)) * 3
    targets = RANDOM.integers(0, 7, (3, 4))
    weights = (RANDOM.random((3, 4)) < 0.6).astype(np.float32)
    arrays = jnp.float32(logits), jnp.asarray(targets), jnp.asarray(weights)
    loss, weight, sums = cross_entropy(*arrays, smoothing)
    places = np.argwhere(weights > 0)
    expected = sum(oracle.smoothed_cross_entropy(logits[b, t], targets[b, t], smoothing) for b, t in places)
    plain = sum(oracle.smoothed_cross_entropy(logits[b, t], targets[b, t], 0.0) for b, t in places)
    np.testing.assert_allclose([loss, weight, sums["nll"]], [expected, weights.sum(), plain], rtol=1e-5)
    assert sums["correct"] == sum(logits[b, t].argmax() == targets[b, t] for b, t in places)
    slope = jax.grad(lambda logits: cross_entropy(logits, *arrays[1:], smoothing)[0])(arrays[0])
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    goals = np.eye(7)[targets] * (1 - smoothing) + smoothing / 7
    np.testing.assert_allclose(slope, (probabilities - goals) * weights[..., None], atol=1e-6)


def test_cross_attention_on_request():
    """Weights are given by layer and head, and are distributions over the real source positions."""
    s = subject("transformer")
    batch = batch_of(s)
    weights = np.asarray(s.model.apply(s.params, batch.inputs, batch.prefix, method="attention_weights"))
    assert weights.shape == (2, len(LENGTHS), 2, max(LENGTHS), max(LENGTHS))
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    pads = ~np.asarray(s.inputs.mask)[None, :, None, None, :]
    assert not (weights * pads).any()
