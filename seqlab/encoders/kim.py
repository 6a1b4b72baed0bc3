"""Convolutions of several widths with a maximum over time (Kim 2014), optionally followed by highway layers."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqlab.layers.convolution import shift
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.readers.words import Words
from seqlab.system.errors import SeqlabError
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
        if not self.widths or min(self.widths) < 1:
            raise SeqlabError(f"widths must be one or more numbers of at least 1, not {self.widths}")
        x, mask = self.reader.read(inputs, self.dim)
        x = Dropout(self.dropout)(jnp.where(mask[..., None], x, 0.0), train=train)
        maps = []
        for i, width in enumerate(self.widths):
            window = jnp.concatenate([shift(x, width // 2 - j) for j in range(width)], axis=-1)
            sizes = (window.shape[-1], self.filters)
            kernel = Dense("bpf,fd->bpd", sizes, bias=True, dtype=self.dtype, name=f"convolutions_{i}")
            maps.append(jax.nn.relu(kernel(window)))
        values = jnp.where(mask[..., None], jnp.concatenate(maps, axis=-1), 0.0)
        summary, width = values.max(axis=1), values.shape[-1]  # zero for a row of pads, since relu is not negative
        for i in range(self.highway):
            inner = Dense("bd,de->be", (width, width), bias=True, dtype=self.dtype, name=f"highway_{i}")
            gate = Dense("bd,de->be", (width, width), bias=True, dtype=self.dtype, name=f"gate_{i}")
            t = jax.nn.sigmoid(gate(summary) - 2.0)  # at first, mostly the identity
            summary = t * jax.nn.relu(inner(summary)) + (1 - t) * summary
        return Encoded(values, mask, Dropout(self.dropout)(summary, train=train))


TINY = KimEncoder(Words(vocabulary=9), dim=8, widths=(2, 3), filters=6)
VARIANTS = (TINY.clone(widths=(1, 5), highway=2),)
