"""Layers that group words into sentences. Documents are flat sequences in which each token has a sentence number."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.attention import masked_softmax
from seqlab.layers.axes import declare_axes
from seqlab.layers.dense import Dense
from seqlab.layers.recurrent import Bidirectional
from seqlab.system.checks import check_minimum
from seqlab.types import Tokens


def segments_of(inputs: Tokens) -> Int[Array, "B S"]:
    """Returns the sentence number of each token, so that a recurrent layer resets its state at each sentence."""
    return jnp.zeros_like(inputs.ids) if inputs.sentences is None else inputs.sentences


def members(inputs: Tokens, sentences: int) -> Bool[Array, "B N S"]:
    """Returns which real tokens belong to each of the first `sentences` sentences. Tokens of later sentences belong
    to the last one.

    sentences  0 0 1 3 3 -      1 1 0 0 0 0
                                0 0 1 0 0 0
                                0 0 0 1 1 0      (N = 3)
    """
    marks = jnp.minimum(segments_of(inputs), sentences - 1)
    return (marks[:, None, :] == jnp.arange(sentences)[None, :, None]) & inputs.mask[:, None, :]


class Pool(nn.Module):
    """The weighted mean of sets of vectors (Yang et al. 2016, section 2.2), with weights softmax(u . tanh(W x + b)),
    where u is learned.
    """

    dim: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B S E"], members: Bool[Array, "B N S"]) -> Float[Array, "B N E"]:
        """Returns one mean for each set of members; zero for an empty set."""
        dense = Dense("bse,ed->bsd", (x.shape[-1], self.dim), bias=True, dtype=self.dtype, name="hidden")
        vector = self.param("vector", nn.initializers.normal(self.dim**-0.5), (self.dim,))
        declare_axes(self, "vector", (None,))
        weights = masked_softmax((jnp.tanh(dense(x)) @ vector)[:, None, :], members)
        self.sow("intermediates", "weights", weights)
        return jnp.einsum("bns,bse->bne", weights, x)


def document_vector(
    words: Float[Array, "B S E"],
    inputs: Tokens,
    sentences: int,
    cell: str,
    hidden: int,
    dropout: float,
    dtype: str,
    *,
    train: bool,
) -> Float[Array, "B D"]:
    """Returns a vector of each document, D = 2 `hidden`: a pooled vector of the words of each sentence, a recurrent
    encoder of the sentences, and its pooled output (Yang et al. 2016). `words` are the vectors of the tokens
    `inputs`. There are at most `sentences` sentences: later ones are merged into the last one.

    Call it in a compact method, whose module owns the layers "word_attention", "sentence_encoder" and
    "sentence_attention".
    """
    check_minimum("sentences", sentences, 1)
    parts, width = members(inputs, sentences), 2 * hidden
    real = parts.any(-1)
    x = Pool(width, dtype, name="word_attention")(words, parts)
    sizes = (cell, 1, x.shape[-1], hidden, dropout, dtype)
    x, _ = Bidirectional(*sizes, name="sentence_encoder")(x, real, train=train)
    return Pool(width, dtype, name="sentence_attention")(x, real[:, None, :])[:, 0]
