"""One number from many: any sequence layer, read at the last position (Le et al. 2015, Bai et al. 2018)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.dense import Dense
from seqlab.layers.sequence import SequenceStack, stack_path
from seqlab.types import Regressor, Series


class SequenceRegressor(nn.Module, Regressor):
    layer: str = "gru"
    """rnn, irnn, lstm, gru or tcn."""
    layers: int = 1
    dim: int = 128
    kernel: int = 7
    """Of a convolution."""
    dropout: float = 0.0
    """Of what a recurrent layer reads; of a TCN, within its blocks."""
    dtype: str = "float32"
    """What the operands of products with parameters are rounded to; all else is float32."""

    @property
    def widest_kernel(self) -> int:
        return self.kernel if self.layer == "tcn" else 1

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": stack_path(self.layer, self.layers, self.kernel, length)}

    @nn.compact
    def regress(self, inputs: Series, *, train: bool) -> Float[Array, "B"]:
        stack = SequenceStack(self.layer, self.layers, self.dim, self.kernel, self.dropout, self.dtype, name="stack")
        x = stack(inputs.values, inputs.mask, train=train)
        last = jnp.maximum(inputs.mask.sum(axis=1) - 1, 0)
        x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        return Dense("bd,do->bo", (self.dim, 1), bias=True, dtype=self.dtype, name="output")(x)[:, 0]


TINY = SequenceRegressor(layer="tcn", layers=2, dim=8, kernel=3)
VARIANTS = (TINY.clone(layer="gru", layers=1), TINY.clone(layer="lstm"))
