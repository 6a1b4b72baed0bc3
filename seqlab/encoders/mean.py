"""A deep averaging network: the mean of a document's embeddings and a dense layer (Iyyer et al. 2015)."""

import jax
from flax import linen as nn

from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.summary import mean_of_real
from seqlab.readers.words import Words
from seqlab.types import Encoded, Encoder, Inputs


class MeanEncoder(nn.Module, Encoder):
    """The summary does not depend on the order of the words. The values are the embeddings."""

    reader: nn.Module = Words()
    dim: int = 256
    """Width of the embeddings."""
    hidden: int = 256
    """Width of the summary."""
    dropout: float = 0.3
    """Dropout rate."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def causal(self) -> bool:
        return False

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 1}

    @nn.compact
    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        x, mask = self.reader.read(inputs, self.dim)
        mean = Dropout(self.dropout)(mean_of_real(x, mask), train=train)
        sizes, axes = (x.shape[-1], self.hidden), ("inputs", "hidden")
        inner = Dense("bd,dh->bh", sizes, bias=True, dtype=self.dtype, axes=axes, name="inner")
        return Encoded(x, mask, jax.nn.relu(inner(mean)))


TINY = MeanEncoder(Words(vocabulary=9), dim=8, hidden=12)
