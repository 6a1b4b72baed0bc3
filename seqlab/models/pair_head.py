"""The class of a pair of texts that are encoded separately by one encoder (Conneau et al. 2017)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.head import EncoderHead, encode_inputs
from seqlab.readers.words import Words
from seqlab.types import Classifier, Tokens


class PairHead(EncoderHead, Classifier):
    """Classifies [u, v, |u - v|, u v], where u and v are the summaries of the two texts of a row. Leave the number of
    classes at 0: it is set from the data. `ClassifierHead`, in contrast, reads both texts as one sequence.
    """

    encoder: nn.Module = RecurrentEncoder(both_ways=True)
    classes: int = 0
    """Number of classes; 0: set from the labels of the training data."""
    hidden: int = 512
    """Number of hidden units."""
    dropout: float = 0.1
    """Dropout rate of the features of the pair and of the hidden units."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @nn.compact
    def classify(self, inputs: Tokens, *, train: bool) -> Float[Array, "B C"]:
        in_second = jnp.zeros_like(inputs.mask) if inputs.types is None else inputs.types == 1
        u, v = (
            encode_inputs(self.encoder, select_tokens(inputs, inputs.mask & side), train=train).summary
            for side in (~in_second, in_second)
        )
        x = Dropout(self.dropout)(jnp.concatenate([u, v, jnp.abs(u - v), u * v], axis=-1), train=train)
        inner = Dense("bd,dh->bh", (x.shape[-1], self.hidden), bias=True, dtype=self.dtype, name="inner")
        x = Dropout(self.dropout)(jax.nn.relu(inner(x)), train=train)
        return Dense("bh,hc->bc", (self.hidden, self.classes), bias=True, dtype=self.dtype, name="output")(x)


def select_tokens(inputs: Tokens, members: Bool[Array, "B S"]) -> Tokens:
    """Returns the members of each row, moved to the left.

    ids  5 6 7 8    members  0 0 1 1        7 8 - -
    """
    order = jnp.argsort(~members, axis=1, stable=True)
    mask = jnp.take_along_axis(members, order, axis=1)
    return Tokens(jnp.where(mask, jnp.take_along_axis(inputs.ids, order, axis=1), 0), mask)


TINY = PairHead(RecurrentEncoder(Words(vocabulary=9), dim=8, both_ways=True), classes=3, hidden=12)
