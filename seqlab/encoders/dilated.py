"""Causal convolutions with dilations 1, 2, 4, ...: a temporal convolutional network (Bai et al. 2018)."""

from flax import linen as nn

from seqlab.layers.convolution import TCNBlock, dilations, max_moves, run_over_all
from seqlab.layers.summary import last_real
from seqlab.readers.words import Words
from seqlab.system.checks import check_minimum
from seqlab.types import Encoded, Encoder, Inputs


class DilatedEncoder(nn.Module, Encoder):
    """Each position depends on itself and earlier positions. The summary is the output at the last real position."""

    reader: nn.Module = Words()
    layers: int = 4
    """Number of layers."""
    dim: int = 128
    """Width of the encoder."""
    kernel: int = 7
    """Number of positions that a convolution spans."""
    dropout: float = 0.0
    """Dropout rate within the blocks."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def causal(self) -> bool:
        return True

    @property
    def widest_kernel(self) -> int:
        return self.kernel

    @property
    def receptive_field(self) -> int:
        return 1 + 2 * (self.kernel - 1) * sum(dilations(self.layers, self.layers))

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": max_moves(2 * dilations(self.layers, self.layers), self.kernel, length - 1)}

    @nn.compact
    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        check_minimum("layers", self.layers, 1)
        check_minimum("kernel", self.kernel, 2)
        x, mask = self.reader.read(inputs, self.dim)
        run = run_over_all(mask)
        for i, dilation in enumerate(dilations(self.layers, self.layers)):
            block = TCNBlock(
                x.shape[-1], self.dim, self.kernel, dilation, self.dropout, self.dtype, name=f"blocks_{i}"
            )
            x = block(x, run, train=train)
        return Encoded(x, mask, last_real(x, mask))


TINY = DilatedEncoder(Words(vocabulary=9), layers=2, dim=8, kernel=3)
