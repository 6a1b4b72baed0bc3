"""Convolutions of several widths with a maximum over time (Kim 2014), optionally followed by highway layers."""

import jax
from flax import linen as nn

from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.phrases import phrase_vectors
from seqlab.readers.words import Words
from seqlab.types import Encoded, Encoder, Inputs


class KimEncoder(nn.Module, Encoder):
    """The values are the outputs of all convolutions at each position; the summary has their maximum over the text. A
    highway layer is t relu(W x + b) + (1 - t) x with t = sigmoid(V x + c) (Srivastava et al. 2015).
    """

    reader: nn.Module = Words()
    dim: int = 300
    """Width of the embeddings."""
    widths: tuple[int, ...] = (3, 4, 5)
    """Number of positions that each kind of convolution spans."""
    filters: int = 100
    """Number of filters of each width."""
    highway: int = 0
    """Number of highway layers on the summary."""
    dropout: float = 0.5
    """Dropout rate of the embeddings and of the summary."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def causal(self) -> bool:
        return False

    @property
    def widest_kernel(self) -> int:
        return max(self.widths, default=1)

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 1}

    @nn.compact
    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        x, mask = self.reader.read(inputs, self.dim)
        x = Dropout(self.dropout)(x, train=train)
        values = phrase_vectors(x, mask, self.widths, self.filters, self.dtype)
        summary, width = values.max(axis=1), values.shape[-1]  # zero for a row of pads, since relu is not negative
        for i in range(self.highway):
            inner = Dense("bd,de->be", (width, width), bias=True, dtype=self.dtype, name=f"highway_{i}")
            gate = Dense("bd,de->be", (width, width), bias=True, dtype=self.dtype, name=f"gate_{i}")
            t = jax.nn.sigmoid(gate(summary) - 2.0)  # at first, mostly the identity
            summary = t * jax.nn.relu(inner(summary)) + (1 - t) * summary
        return Encoded(values, mask, Dropout(self.dropout)(summary, train=train))


TINY = KimEncoder(Words(vocabulary=9), dim=8, widths=(2, 3), filters=6)
VARIANTS = (TINY.clone(widths=(1, 5), highway=2),)
