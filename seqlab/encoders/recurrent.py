"""Unidirectional (Elman 1990) or bidirectional (Schuster & Paliwal 1997) recurrent layers."""

import jax.numpy as jnp
from flax import linen as nn

from seqlab.layers.recurrent import Bidirectional, RecurrentStack
from seqlab.layers.summary import last_real
from seqlab.readers.words import Words
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Encoded, Encoder, Inputs


class RecurrentEncoder(nn.Module, Encoder):
    """The summary is the output at the last real position, or the final outputs of both directions, concatenated."""

    reader: nn.Module = Words()
    cell: str = "gru"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    layers: int = 1
    """Number of layers."""
    dim: int = 128
    """Width of the outputs; with `both_ways`, the total width of the two directions."""
    both_ways: bool = False
    """Read in both directions."""
    dropout: float = 0.0
    """Dropout rate of the input of each layer."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def causal(self) -> bool:
        return not self.both_ways

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": length - 1}

    @nn.compact
    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        check_minimum("layers", self.layers, 1)
        x, mask = self.reader.read(inputs, self.dim)
        if not self.both_ways:
            stack = RecurrentStack(
                self.cell, self.layers, x.shape[-1], self.dim, self.dropout, dtype=self.dtype, name="stack"
            )
            x, _ = stack(x, mask, train=train)
            return Encoded(x, mask, last_real(x, mask))
        if self.dim % 2:
            raise SeqlabError(f"dim must be even with both_ways, not {self.dim}")
        sizes = (self.cell, self.layers, x.shape[-1], self.dim // 2, self.dropout, self.dtype)
        x, ends = Bidirectional(*sizes, name="stack")(x, mask, train=train)
        return Encoded(x, mask, jnp.concatenate([side[0] for side in ends[-1]], axis=-1))


TINY = RecurrentEncoder(Words(vocabulary=9), dim=8)
VARIANTS = (TINY.clone(cell="irnn"), TINY.clone(cell="lstm", layers=2, both_ways=True))
