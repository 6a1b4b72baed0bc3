"""The mean of a document's embeddings, then two dense layers (Iyyer et al. 2015, deep averaging network)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.types import Classifier, Tokens


class MeanEmbeddings(nn.Module, Classifier):
    """Knows which words there are, and not their order. Vocabulary and classes are 0 in a config."""

    source_vocabulary: int = 0
    classes: int = 0
    dim: int = 256
    hidden: int = 256
    dropout: float = 0.3
    dtype: str = "float32"
    """What the operands of products with parameters are rounded to; all else is float32."""

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 1}

    @nn.compact
    def classify(self, inputs: Tokens, *, train: bool) -> Float[Array, "B C"]:
        # The mean of many: a standard deviation of 1 keeps it from vanishing.
        table = self.param("table", nn.initializers.normal(1.0), (self.source_vocabulary, self.dim))
        mask = inputs.mask[..., None]
        total = (table[inputs.ids] * mask).sum(axis=1)
        mean = total / jnp.maximum(mask.sum(axis=1), 1)
        mean = Dropout(self.dropout)(mean, train=train)
        x = jax.nn.relu(Dense("bd,dh->bh", (self.dim, self.hidden), bias=True, dtype=self.dtype, name="inner")(mean))
        x = Dropout(self.dropout)(x, train=train)
        return Dense("bh,hc->bc", (self.hidden, self.classes), bias=True, dtype=self.dtype, name="outer")(x)


TINY = MeanEmbeddings(source_vocabulary=9, classes=3, dim=8, hidden=12)
