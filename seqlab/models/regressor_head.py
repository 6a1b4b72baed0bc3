"""Regression: a dense layer on the summary of an encoder predicts one number (Le et al. 2015, Bai et al. 2018)."""

from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.encoders.dilated import DilatedEncoder
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.layers.dense import Dense
from seqlab.layers.head import EncoderHead, encode_inputs
from seqlab.readers.numbers import Numbers
from seqlab.types import Inputs, Regressor


class RegressorHead(EncoderHead, Regressor):
    encoder: nn.Module = RecurrentEncoder(Numbers())
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @nn.compact
    def regress(self, inputs: Inputs, *, train: bool) -> Float[Array, "B"]:
        x = encode_inputs(self.encoder, inputs, train=train).summary
        return Dense("bd,do->bo", (x.shape[-1], 1), bias=True, dtype=self.dtype, name="output")(x)[:, 0]


TINY = RegressorHead(DilatedEncoder(Numbers(features=2), layers=2, dim=8, kernel=3))
VARIANTS = (
    RegressorHead(RecurrentEncoder(Numbers(features=2), dim=8)),
    RegressorHead(RecurrentEncoder(Numbers(features=2), dim=8, cell="lstm")),
)
