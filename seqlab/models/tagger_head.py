"""A class at every position of a sequence: a dense layer on the values of an encoder."""

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from seqlab.encoders.dilated import DilatedEncoder
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.layers.dense import Dense
from seqlab.layers.head import EncoderHead, encode_inputs
from seqlab.readers.words import Words
from seqlab.types import Inputs, Tagger


class TaggerHead(EncoderHead, Tagger):
    """In a config, leave the number of classes at 0: it is set from the data."""

    encoder: nn.Module = RecurrentEncoder()
    classes: int = 0
    """Number of classes; 0: set from the labels of the training data."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @nn.compact
    def tag(self, inputs: Inputs, *, train: bool) -> tuple[Float[Array, "B P C"], Bool[Array, "B P"]]:
        encoded = encode_inputs(self.encoder, inputs, train=train)
        sizes = (encoded.values.shape[-1], self.classes)
        output = Dense("bsd,dc->bsc", sizes, bias=True, dtype=self.dtype, name="output")
        return output(encoded.values), encoded.mask


TINY = TaggerHead(RecurrentEncoder(Words(vocabulary=9), dim=8), classes=3)
VARIANTS = (TINY.clone(encoder=DilatedEncoder(Words(vocabulary=9), layers=2, dim=8, kernel=3)),)
