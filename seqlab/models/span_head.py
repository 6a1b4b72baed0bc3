"""The head of BERT for extractive question answering: the first and the last token of a span (Devlin et al. 2019)."""

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from seqlab.encoders.bert import BertEncoder
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.layers.dense import Dense
from seqlab.layers.head import EncoderHead, encode_inputs
from seqlab.readers.words import Words
from seqlab.types import Inputs, SpanPredictor

ZERO_GRADIENTS = ("['last_norm']['bias']",)  # adds a constant to all positions, which the softmax over them cancels


class SpanHead(EncoderHead, SpanPredictor):
    """Two products with the values of an encoder, without biases, which a softmax over positions would cancel."""

    encoder: nn.Module = BertEncoder()
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def classes(self) -> int:
        return 2

    @nn.compact
    def predict_span(self, inputs: Inputs, *, train: bool) -> tuple[Float[Array, "B P 2"], Bool[Array, "B P"]]:
        encoded = encode_inputs(self.encoder, inputs, train=train)
        output = Dense("bsd,dc->bsc", (encoded.values.shape[-1], 2), dtype=self.dtype, name="output")
        return output(encoded.values), encoded.mask


TINY = SpanHead(RecurrentEncoder(Words(vocabulary=9), dim=8, both_ways=True))
