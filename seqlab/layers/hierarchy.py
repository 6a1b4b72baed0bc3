"""From words to sentences: documents travel flat, each token marked with the sentence it is of."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.attention import masked_softmax
from seqlab.layers.axes import declare_axes
from seqlab.layers.dense import Dense
from seqlab.types import Tokens


def segments_of(inputs: Tokens) -> Int[Array, "B S"]:
    """Each token's sentence, so that a recurrent layer begins anew in each."""
    return jnp.zeros_like(inputs.ids) if inputs.sentences is None else inputs.sentences


def members(inputs: Tokens, sentences: int) -> Bool[Array, "B N S"]:
    """Which real tokens each of the first `sentences` sentences has; tokens of later ones count to the last.

    sentences  0 0 1 3 3 -      1 1 0 0 0 0
                                0 0 1 0 0 0
                                0 0 0 1 1 0      (N = 3)
    """
    marks = jnp.minimum(segments_of(inputs), sentences - 1)
    return (marks[:, None, :] == jnp.arange(sentences)[None, :, None]) & inputs.mask[:, None, :]


class Pool(nn.Module):
    """The mean of some vectors, weighted by how well each fits what is looked for (Yang et al. 2016, section 2.2):
    weights softmax(u . tanh(W x + b)), u learned.
    """

    dim: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B S E"], members: Bool[Array, "B N S"]) -> Float[Array, "B N E"]:
        """One mean for each set of members; of an empty set it is zero."""
        dense = Dense("bse,ed->bsd", (x.shape[-1], self.dim), bias=True, dtype=self.dtype, name="hidden")
        vector = self.param("vector", nn.initializers.normal(self.dim**-0.5), (self.dim,))
        declare_axes(self, "vector", (None,))
        weights = masked_softmax((jnp.tanh(dense(x)) @ vector)[:, None, :], members)
        self.sow("intermediates", "weights", weights)  # for those who ask to see them
        return jnp.einsum("bns,bse->bne", weights, x)
