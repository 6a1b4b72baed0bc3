"""Encoders and heads of transfer learning, against NumPy and against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.encoders import bert, bilm, elmo, kim, recurrent, sentence_attention
from seqlab.laws.subject import make_subject
from seqlab.layers.nesting import with_fields
from seqlab.layers.recurrent import Bidirectional
from seqlab.models import bidirectional_lm, pair_head
from seqlab.models.classifier_head import ClassifierHead
from seqlab.models.pair_head import select_tokens
from seqlab.readers.words import Words
from seqlab.runs.parameters import init_model_parameters
from seqlab.system.errors import SeqlabError
from seqlab.types import Tokens


@functools.cache
def encoded(encoder):
    """Returns the inputs of a small encoder, its parameters, and what it returns."""
    s = make_subject(ClassifierHead(encoder, classes=3))
    params = {"params": s.params["params"]["encoder"]}
    run = jax.jit(functools.partial(encoder.apply, train=False, method="encode"))
    return s.inputs, params, run


def changed(inputs, places, vocabulary=9):
    """Returns the inputs with other tokens at some places [T], which are true."""
    return inputs.replace(ids=np.where(places, (inputs.ids + 1) % vocabulary, inputs.ids).astype(np.int32))


def test_token_types_and_the_summary():
    inputs, params, run = encoded(bert.TINY)
    plain = run(params, inputs.replace(types=None))
    first = run(params, inputs.replace(types=np.zeros_like(inputs.ids)))
    np.testing.assert_array_equal(plain.values, first.values)
    assert np.abs(np.asarray(run(params, inputs).values) - plain.values).max() > 1e-3
    # The summary is the output at a position of its own, so that it depends on every token.
    for place in range(8):
        moved = run(params, changed(inputs, np.arange(8) == place)).summary[0]
        assert np.abs(np.asarray(moved - run(params, inputs).summary[0])).max() > 1e-5
    assert plain.values.shape[:2] == inputs.ids.shape


def test_the_longest_row_has_room_for_the_summary():
    encoder = bert.TINY.clone(positions="learned", max_length=8)
    assert encoder.longest == 7
    params = init_model_parameters(ClassifierHead(encoder, classes=3), 0)
    run = jax.jit(functools.partial(ClassifierHead(encoder, classes=3).apply, train=False, method="classify"))
    tokens = [Tokens(jnp.ones((1, n), jnp.int32), jnp.ones((1, n), bool)) for n in (7, 8)]
    assert run(params, tokens[0]).shape == (1, 3)
    with pytest.raises(SeqlabError, match="9 positions are needed, but only 8 are learned"):
        run(params, tokens[1])


def test_neither_direction_sees_its_prediction():
    """The prediction of a token does not change with the token, in either direction."""
    s = make_subject(bidirectional_lm.TINY)
    before = np.asarray(s.forward(s.params, s.inputs, None))[0]
    length = s.inputs.ids.shape[1]
    for place in range(length):
        after = np.asarray(s.forward(s.params, changed(s.inputs, np.arange(length) == place), None))[0]
        same = [np.array_equal(before[i], after[i]) for i in range(2 * length)]
        # Forward outputs read the tokens up to their position, backward outputs those from their position on.
        assert same == [i < place for i in range(length)] + [i > place for i in range(length)]


def test_the_mixture_of_layers():
    """The input of the recurrent layers is the weighted sum, as computed in NumPy."""
    inputs, params, run = encoded(elmo.TINY)
    random = np.random.default_rng(0)
    scores = np.float32(random.normal(size=3))
    mixed = {**params["params"], "mixture": jnp.asarray(scores), "gamma": jnp.float32(0.7)}
    inner = {"params": params["params"]["encoder"]}
    layers = jax.jit(functools.partial(bilm.TINY.apply, train=False, method="encode"))(inner, inputs).layers
    weights = np.exp(scores) / np.exp(scores).sum()
    expected = 0.7 * np.tensordot(weights, np.asarray(layers), axes=1)
    result = run({"params": mixed}, inputs).values
    stack = {"params": mixed["stack"]}
    size = layers.shape[-1]
    layer = Bidirectional("lstm", 1, size, elmo.TINY.dim, 0.0)
    outputs, _ = layer.apply(stack, jnp.asarray(expected), jnp.asarray(inputs.mask))
    real = inputs.mask
    np.testing.assert_allclose(np.asarray(result)[real], np.asarray(outputs)[real], rtol=1e-4, atol=1e-6)


def test_layers_of_the_bidirectional_model():
    inputs, params, run = encoded(bilm.TINY)
    result = run(params, inputs)
    embeddings = np.asarray(params["params"]["words"]["table"])[inputs.ids] * 8**0.5
    np.testing.assert_allclose(result.layers[0], np.concatenate([embeddings] * 2, axis=-1), rtol=1e-6)
    np.testing.assert_array_equal(result.layers[-1], result.values)
    assert result.layers.shape == (3, *inputs.ids.shape, 16)


def test_an_encoder_without_layers_is_refused():
    with pytest.raises(SeqlabError, match="KimEncoder does not return its layers: use BilmEncoder"):
        init_model_parameters(ClassifierHead(elmo.TINY.clone(encoder=kim.TINY), classes=3), 0)


def test_sentences_on_another_encoder():
    """The summary attends to the words of each sentence, and to the sentences, as computed in NumPy."""
    encoder = sentence_attention.TINY
    inputs, params, run = encoded(encoder)
    leaves, result = jax.tree.map(np.asarray, params["params"]), run(params, inputs)

    def pooled(x, name):
        hidden = np.tanh(x @ leaves[name]["hidden"]["kernel"] + leaves[name]["hidden"]["bias"])
        weights = np.exp(hidden @ leaves[name]["vector"])
        return weights @ x / weights.sum()

    for row, mask, values, summary in zip(
        inputs.sentences, inputs.mask, np.asarray(result.values), result.summary, strict=True
    ):
        numbers = np.minimum(row[mask], encoder.sentences - 1)
        vectors = np.stack([pooled(values[mask][numbers == n], "word_attention") for n in np.unique(numbers)])
        sizes = ("gru", 1, vectors.shape[-1], encoder.hidden, 0.0)
        layer, real = jax.jit(Bidirectional(*sizes).apply), jnp.ones((1, len(vectors)), bool)
        outputs, _ = layer({"params": params["params"]["sentence_encoder"]}, jnp.asarray(vectors)[None], real)
        expected = pooled(np.asarray(outputs)[0], "sentence_attention")
        np.testing.assert_allclose(summary, expected, rtol=1e-4, atol=1e-5)


class EverySecond(Words):
    """Embeds every second token."""

    def read(self, inputs, width, *, embed=None):
        x, mask = super().read(inputs, width, embed=embed)
        return x[:, ::2], mask[:, ::2]


def test_sentences_need_a_vector_for_each_token():
    encoder = sentence_attention.TINY.clone(encoder=recurrent.TINY.clone(reader=EverySecond(vocabulary=9)))
    with pytest.raises(SeqlabError, match="returns 1 positions for 2 tokens: sentences need a vector"):
        init_model_parameters(ClassifierHead(encoder, classes=3), 0)


@pytest.mark.parametrize("widths", [(2, 3), (1, 5)])
def test_convolutions_of_several_widths(widths):
    """The summary is the maximum over real positions of relu(W [x_i ..] + b), as computed in NumPy."""
    encoder = kim.TINY.clone(widths=widths)
    inputs, params, run = encoded(encoder)
    leaves = jax.tree.map(np.asarray, params["params"])
    table, maxima = leaves["reader"]["words"]["table"], []
    for row, mask in zip(inputs.ids, inputs.mask, strict=True):
        x = table[row] * mask[:, None]
        parts = []
        for i, width in enumerate(widths):
            padded = np.pad(x, ((width // 2, width), (0, 0)))
            windows = np.stack([padded[t : t + width].ravel() for t in range(len(x))])
            kernel = leaves[f"convolutions_{i}"]
            parts.append(np.maximum(windows @ kernel["kernel"] + kernel["bias"], 0) * mask[:, None])
        maxima.append(np.concatenate(parts, axis=-1).max(0))
    np.testing.assert_allclose(run(params, inputs).summary, np.stack(maxima), rtol=1e-4, atol=1e-6)


def test_highway_layers():
    """A highway layer is t relu(W x + b) + (1 - t) x, as computed in NumPy."""
    encoder = kim.TINY.clone(highway=1)
    inputs, params, run = encoded(encoder)
    plain = {name: leaf for name, leaf in params["params"].items() if not name.endswith("_0") or "conv" in name}
    x = np.asarray(encoded(kim.TINY)[2]({"params": plain}, inputs).summary)
    inner, gate = (params["params"][f"{name}_0"] for name in ("highway", "gate"))
    t = 1 / (1 + np.exp(-(x @ gate["kernel"] + gate["bias"] - 2)))
    expected = t * np.maximum(x @ inner["kernel"] + inner["bias"], 0) + (1 - t) * x
    np.testing.assert_allclose(run(params, inputs).summary, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("widths", [(), (0, 3)])
def test_widths_are_checked(widths):
    with pytest.raises(SeqlabError, match="widths must be one or more numbers of at least 1"):
        init_model_parameters(ClassifierHead(kim.TINY.clone(widths=widths), classes=3), 0)


def test_the_texts_of_a_pair():
    ids = jnp.array([[5, 6, 7, 8], [5, 0, 0, 0]])
    members = jnp.array([[False, True, False, True], [False] * 4])
    result = select_tokens(Tokens(ids, members), members)
    np.testing.assert_array_equal(result.ids, [[6, 8, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(result.mask, [[True, True, False, False], [False] * 4])


def test_the_texts_of_a_pair_are_encoded_separately():
    """The logits of a pair equal those of the head on the summaries of both texts alone."""
    s = make_subject(pair_head.TINY)
    encoder = {"params": s.params["params"]["encoder"]}
    run = functools.partial(with_fields(pair_head.TINY, dropout=0.0).encoder.apply, encoder, train=False)
    row, mask = s.inputs.ids[0], s.inputs.types[0] == 1
    u, v = (
        run(Tokens(jnp.asarray(part)[None], jnp.ones((1, len(part)), bool)), method="encode").summary[0]
        for part in (row[~mask], row[mask])
    )
    x = np.concatenate([u, v, np.abs(u - v), u * v])
    leaves = jax.tree.map(np.asarray, s.params["params"])
    x = np.maximum(x @ leaves["inner"]["kernel"] + leaves["inner"]["bias"], 0)
    expected = x @ leaves["output"]["kernel"] + leaves["output"]["bias"]
    np.testing.assert_allclose(s.forward(s.params, s.inputs, None)[0], expected, rtol=1e-4, atol=1e-6)
