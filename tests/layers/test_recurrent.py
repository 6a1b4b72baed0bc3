"""Compares recurrent layers with NumPy on ragged rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.layers.recurrent import GATES, Bidirectional, Recurrent, RecurrentStack
from tests.oracles import layers as oracle

LENGTHS = (5, 1, 3, 0)
MASK = jnp.arange(max(LENGTHS)) < jnp.array(LENGTHS)[:, None]
CELLS = [
    (cell, reset, layer_norm)
    for cell in GATES
    for reset in (("before", "after") if cell == "gru" else ("after",))
    for layer_norm in (False, True)
]


def jiggled(params, seed=1):
    """Adds noise to all parameters, so that none remains at an initial value of zeros or ones."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + random.normal(size=x.shape, scale=0.3).astype(np.float32), params)


def expected(layer, params, x):
    p = jax.tree.map(np.asarray, params["params"])

    def norm(name):
        return (p[name]["scale"], p[name]["bias"]) if name in p else None

    weights = p["input"]["kernel"], p["recurrent"], p["bias"], p.get("candidate_bias")
    norms = norm("input_norm"), norm("recurrent_norm"), norm("cell_norm"), norm("candidate_norm")
    return oracle.recurrent(layer.cell, layer.reset, x, weights, norms)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("cell", "reset", "layer_norm"), CELLS)
def test_cells(cell, reset, layer_norm):
    """Checks the forward direction, the backward direction from the end of each row, and single steps."""
    x = jnp.float32(np.random.default_rng(0).normal(size=(4, 5, 3)))
    layer = Recurrent(cell, inputs=3, dim=6, reset=reset, layer_norm=layer_norm)
    params = jiggled(layer.init(jax.random.key(0), x, MASK))
    forward, last = jax.jit(layer.apply)(params, x, MASK)
    backward, first = jax.jit(lambda params, x: layer.apply(params, x, MASK, reverse=True))(params, x)
    for row, length in enumerate(LENGTHS):
        there = expected(layer, params, np.asarray(x)[row, :length])
        back = expected(layer, params, np.asarray(x)[row, :length][::-1])
        if length:
            np.testing.assert_allclose(forward[row, :length], there, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(backward[row, :length], back[::-1], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(last[0][row], there[-1] if length else 0 * last[0][row], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(first[0][row], back[-1] if length else 0 * first[0][row], rtol=1e-4, atol=1e-6)
    state = layer.initial(1, 2)
    step = jax.jit(lambda params, x, state: layer.apply(params, x, state, method="step"))
    for t in range(5):
        state = step(params, jnp.repeat(x[:1, t : t + 1], 2, axis=1), state)
        np.testing.assert_allclose(state[0][0, 1], forward[0, t], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_segments_begin_anew(reverse):
    x = jnp.float32(np.random.default_rng(0).normal(size=(1, 5, 3)))
    segments = jnp.array([[1, 1, 2, 2, 2]])
    layer = Recurrent("gru", inputs=3, dim=4)
    real = jnp.ones((1, 5), bool)
    params = jiggled(layer.init(jax.random.key(0), x, real))
    result, _ = layer.apply(params, x, real, segments=segments, reverse=reverse)
    for part in (slice(0, 2), slice(2, 5)):
        alone, _ = layer.apply(params, x[:, part], real[:, part], reverse=reverse)
        np.testing.assert_allclose(result[:, part], alone, rtol=1e-5, atol=1e-6)


def test_a_residual_stack_and_a_bidirectional_one():
    x = jnp.float32(np.random.default_rng(0).normal(size=(4, 5, 3)))
    stack = RecurrentStack("rnn", 2, 3, 4, 0.0, residual=True)
    params = jiggled(stack.init(jax.random.key(0), x, MASK))
    result, states = stack.apply(params, x, MASK)
    layers = [{"params": params["params"][f"stack_{i}"]} for i in range(2)]
    below, _ = Recurrent("rnn", 3, 4).apply(layers[0], x, MASK)
    above, last = Recurrent("rnn", 4, 4).apply(layers[1], below, MASK)
    np.testing.assert_array_equal(result, below + above)
    np.testing.assert_array_equal(states[1][0], last[0])

    layer = Bidirectional("rnn", 1, 3, 4, 0.0)
    params = jiggled(layer.init(jax.random.key(0), x, MASK))
    result, ends = layer.apply(params, x, MASK)
    sides = [params["params"][name] for name in ("forward_0", "backward_0")]
    there, last = Recurrent("rnn", 3, 4).apply({"params": sides[0]}, x, MASK)
    back, first = Recurrent("rnn", 3, 4).apply({"params": sides[1]}, x, MASK, reverse=True)
    np.testing.assert_array_equal(result, np.concatenate([there, back], axis=-1))
    np.testing.assert_array_equal(np.stack([ends[0][0][0], ends[0][1][0]]), np.stack([last[0], first[0]]))


def test_what_cells_begin_with():
    def params(cell, **fields):
        layer = Recurrent(cell, inputs=3, dim=4, **fields)
        return layer.init(jax.random.key(0), jnp.zeros((1, 1, 3)), jnp.ones((1, 1), bool))["params"]

    np.testing.assert_array_equal(params("irnn")["recurrent"], np.eye(4))
    assert 0.0 < np.abs(params("irnn")["input"]["kernel"]).max() < 0.005
    np.testing.assert_array_equal(params("lstm", forget_bias=2.0)["bias"], np.repeat([0, 2, 0, 0], 4))
    gate = params("gru")["recurrent"][:, 4:8]
    np.testing.assert_allclose(gate @ gate.T, jnp.eye(4), atol=1e-5)


def test_unknown_names():
    x, mask = jnp.zeros((1, 1, 3)), jnp.ones((1, 1), bool)
    with pytest.raises(ValueError, match="cell must be one of rnn, irnn, lstm, gru, not 'ltsm'"):
        Recurrent("ltsm", 3, 4).init(jax.random.key(0), x, mask)
    with pytest.raises(ValueError, match="reset must be 'before' or 'after', not 'between'"):
        Recurrent("gru", 3, 4, reset="between").init(jax.random.key(0), x, mask)
