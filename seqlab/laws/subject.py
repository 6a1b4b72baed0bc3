"""The subjects of laws: small models with parameters, ragged inputs and compiled passes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn

from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.layers.nesting import join_inputs, readers_of
from seqlab.models.classifier_head import ClassifierHead
from seqlab.models.tagger_head import TaggerHead
from seqlab.runs.parameters import init_model_parameters
from seqlab.types import (
    Batch,
    Encoder,
    Frames,
    Generator,
    Params,
    Pixels,
    Reader,
    Regressor,
    Tagger,
    Tokens,
    has_mask,
)

LENGTHS = (8, 1, 4, 3, 2)  # default lengths of the rows in a subject's inputs
SENTENCES = ((0, 0, 1, 3, 3, 3, 3, 3), (0,), (0, 1, 1, 2), (0, 2, 2), (1, 1))  # of each token; some are empty


class Subject(NamedTuple):
    """A model under test, with a batch of NumPy arrays: `inputs`, `prefix`, `targets` and `weights`.

    `forward(params, inputs, prefix)` returns logits without dropout: [B T V] for a generator, [B P C] for a tagger,
    [B C] for a classifier; for a regressor, numbers [B]. `gradient(params, inputs, prefix, targets, weights)` returns
    the gradient of the summed loss. Both are compiled. Only generators have a prefix.
    """

    model: Any
    params: Params
    inputs: Any
    prefix: Any
    targets: np.ndarray
    weights: np.ndarray
    forward: Callable[..., jax.Array]
    gradient: Callable[..., Params]


def make_subject(model: Any, seed: int = 0, *, source: int = max(LENGTHS), target: int = max(LENGTHS)) -> Subject:
    """Returns a subject with distinct ragged rows and parameters initialized with `seed`. The longest source has
    `source` positions, the longest prefix `target`.
    """
    random = np.random.default_rng(seed)

    def ragged(longest: int) -> np.ndarray:
        return np.arange(longest) < np.array([longest, *LENGTHS[1:]])[:, None]

    def tokens(vocabulary: int, mask: np.ndarray) -> Tokens:
        ids = np.where(mask, random.integers(min(3, vocabulary - 2), vocabulary, mask.shape), 0)
        return Tokens(ids.astype(np.int32), mask)

    def random_inputs(reader: Any) -> Any:
        blank, mask = reader.blank(len(LENGTHS), source), ragged(source)
        if not isinstance(blank, Tokens):
            values = np.float32(random.normal(size=blank.values.shape))
            return Frames(values, mask) if isinstance(blank, Frames) else Pixels(values)
        sentences = np.zeros(mask.shape, np.int32)
        beyond = range(SENTENCES[0][-1] + 1, SENTENCES[0][-1] + 1 + source - len(SENTENCES[0]))  # one word each
        sentences[mask] = [*SENTENCES[0], *beyond, *(n for row in SENTENCES[1:] for n in row)]
        types = np.int32(np.arange(source) >= source // 2) * mask
        return dataclasses.replace(tokens(reader.vocabulary, mask), sentences=sentences, types=types)

    prefix, is_regressor, params = None, isinstance(model, Regressor), init_model_parameters(model, seed)
    inputs = join_inputs([random_inputs(reader) for reader in readers_of(model).values()])
    if isinstance(model, Generator):
        prefix = tokens(model.vocabulary, ragged(target)[::-1])
        targets = (prefix.ids * 3 + np.arange(len(LENGTHS))[:, None] + 1) % model.vocabulary
        weights = prefix.mask
    elif isinstance(model, Tagger):
        weights = tagger_mask(model, params, inputs)
        has_ids = isinstance(inputs, Tokens) and inputs.ids.shape == weights.shape
        symbols = inputs.ids if has_ids else np.arange(weights.shape[1])
        targets = np.cumsum(symbols * weights, axis=1) % model.classes
    else:
        targets, weights = np.arange(len(LENGTHS)), np.ones(len(LENGTHS))
        targets = np.float32(targets / 2) if is_regressor else targets % model.classes
    batch = Batch(inputs, prefix, targets if is_regressor else np.int32(targets), np.float32(weights))
    return Subject(model, params, inputs, prefix, batch.targets, batch.weights, *passes(model))


def tagger_mask(model: Any, params: Params, inputs: Any) -> np.ndarray:
    """Returns the mask of a tagger's outputs [B P]: that of its inputs, unless it has other positions than these."""
    tag = functools.partial(model.apply, train=False, method="tag")
    positions = jax.eval_shape(tag, params, inputs)[1].shape[1]
    if has_mask(inputs) and positions == inputs.mask.shape[1]:
        return inputs.mask
    return np.asarray(jax.jit(tag)(params, inputs)[1])


def models_with(part: nn.Module) -> list[Any]:
    """Returns small models that contain a part and obey the laws if the part does: heads on an encoder, or on an
    encoder with a reader. A model is returned as is.
    """
    kinds: Any = Reader, Encoder  # typed as Any, so that `isinstance` does not narrow the type of the part
    is_reader, is_encoder = (isinstance(part, kind) for kind in kinds)
    if not is_reader and not is_encoder:
        return [part]
    encoder = RecurrentEncoder(part, dim=8) if is_reader else part
    return [ClassifierHead(encoder, classes=3), TaggerHead(encoder, classes=3)]


@functools.lru_cache(maxsize=64)
def passes(model: Any) -> tuple[Callable[..., jax.Array], Callable[..., Params]]:
    """Returns `forward` and `gradient` of a model. Subjects with equal models share the compiled functions."""
    return jax.jit(functools.partial(logits_of, model)), jax.jit(jax.grad(functools.partial(loss_of, model)))


def logits_of(
    model: Any, params: Params, inputs: Any, prefix: Any, key: Any = None, *, train: bool = False
) -> jax.Array:
    """Returns the logits of a forced pass, or the outputs of a model that is not a generator. `key` is the dropout
    key.
    """
    rngs = None if key is None else {"dropout": key}
    return model.apply(params, inputs, prefix, train=train, rngs=rngs, method="outputs")


def outputs(s: Subject, inputs: Any, prefix: Any) -> np.ndarray:
    """Returns the result of `forward`, restricted to real positions if there is an output per position. The outputs
    of a tagger are 0 at pads.
    """
    result = np.asarray(s.forward(s.params, inputs, prefix))
    if result.ndim < 3:
        return result
    return result[(result != 0).any(-1) if prefix is None else np.asarray(prefix.mask)]


def loss_of(model: Any, params: Params, inputs: Any, prefix: Any, targets: Any, weights: Any) -> jax.Array:
    """Returns the loss, summed over the batch."""
    logits = logits_of(model, params, inputs, prefix)
    if isinstance(model, Regressor):
        return ((logits - targets) ** 2).sum()
    return (optax.softmax_cross_entropy_with_integer_labels(logits, targets) * weights).sum()


def forced(s: Subject, params: Params, rows: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the logits [N T V] of N prefixes, given the inputs of the subject's `rows` [N].

    Prefixes that fit run in batches of the subject's shape, so that no new program is compiled.
    """
    count, length = ids.shape
    batch, width = s.prefix.ids.shape
    padding = ((0, 0), (0, max(width - length, 0)))
    padded = Tokens(np.pad(np.int32(ids), padding), np.pad(mask, padding))
    chosen = np.arange(-(-count // batch) * batch) % count
    logits = [
        np.asarray(s.forward(params, rows_of(s.inputs, rows[indices]), rows_of(padded, indices)))
        for indices in np.split(chosen, len(chosen) // batch)
    ]
    return np.concatenate(logits)[:count, :length]


def rows_of(tree: Any, rows: Any) -> Any:
    return jax.tree.map(lambda x: x[rows], tree)


@functools.partial(jax.jit, static_argnums=0)
def features_of(model: Any, params: Params, prefix: Tokens, carry: Any) -> Any:
    """Returns ([B T D], carry) of a language model."""
    return model.apply(params, None, prefix, carry, train=False, method=type(model).features)


def columns_of(tokens: Tokens, columns: slice) -> Tokens:
    return jax.tree.map(lambda x: x[:, columns], tokens)


def first_prompt(batch: int) -> Tokens:
    """Returns a prompt of BOS for each row."""
    return Tokens(np.ones((batch, 1), np.int32), np.ones((batch, 1), bool))
