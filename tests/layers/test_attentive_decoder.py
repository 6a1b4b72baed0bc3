"""Compares the attentive decoder with NumPy on ragged rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.layers.attentive_decoder import AttentiveDecoder
from seqlab.types import Tokens
from tests.layers.test_recurrent import LENGTHS, MASK, jiggled
from tests.oracles import layers as oracle

DIM = 6


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("early", [True, False])
def test_attentive_decoder(cell, early):
    random = np.random.default_rng(0)
    memory = jnp.float32(random.normal(size=(4, 3, DIM)))
    summary = jnp.float32(random.normal(size=(4, DIM)))
    prefix = Tokens(jnp.int32(random.integers(0, 7, (4, 5))), MASK)
    decoder = AttentiveDecoder(7, cell, DIM, DIM, early, 0.0, tie=True)

    def attend(query):
        weights = jax.nn.softmax(jnp.einsum("bkd,bsd->bks", query, memory), axis=-1)
        return jnp.einsum("bks,bsd->bkd", weights, memory), weights

    def run(module):
        features, _, _ = module(prefix, module.begin(summary), attend)
        return features, module.project(features)

    params = jiggled(jax.jit(lambda key: decoder.init(key, method=run))(jax.random.key(0)))
    features, logits = jax.jit(lambda params: decoder.apply(params, method=run))(params)

    p = jax.tree.map(np.asarray, params["params"])
    layer = p["layer"]
    weights = {name: (p[name]["kernel"], p[name]["bias"]) for name in ("bridge", "combine")}
    weights |= {"feed": p["feed"]["kernel"]}
    weights["layer"] = layer["input"]["kernel"], layer["recurrent"], layer["bias"], layer.get("candidate_bias")
    table, bias = p["words"]["table"], p["words"]["bias"]
    for row, length in enumerate(LENGTHS):
        y = table[np.asarray(prefix.ids)[row, :length]] * DIM**0.5
        result = oracle.attentive_decoder(cell, early, summary[row], y, np.asarray(memory)[row], weights)
        if length:
            np.testing.assert_allclose(features[row, :length], result, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(logits[row, :length], result @ table.T + bias, rtol=1e-4, atol=1e-4)
