"""Convolutions of several widths with a maximum over time (Kim 2014), on top of another encoder.

`KimEncoder` reads embeddings. Here the convolutions read the values of any encoder, usually a pre-trained one.
"""

from flax import linen as nn

from seqlab.encoders.bert import BertEncoder
from seqlab.layers.dropout import Dropout
from seqlab.layers.head import EncoderHead, encode_inputs
from seqlab.layers.phrases import phrase_vectors
from seqlab.readers.words import Words
from seqlab.types import Encoded, Encoder, Inputs


class PhraseEncoder(EncoderHead, Encoder):
    """The values are the outputs of all convolutions at each position; the summary is their maximum over the text."""

    encoder: nn.Module = BertEncoder()
    widths: tuple[int, ...] = (3, 4, 5)
    """Number of positions that each kind of convolution spans."""
    filters: int = 100
    """Number of filters of each width."""
    dropout: float = 0.5
    """Dropout rate of the values of the encoder and of the summary."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def causal(self) -> bool:
        return False

    @property
    def receptive_field(self) -> int | None:
        return None

    @property
    def widest_kernel(self) -> int:
        return max(*self.widths, self.encoder.widest_kernel)

    @nn.compact
    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        encoded = encode_inputs(self.encoder, inputs, train=train)
        drop = Dropout(self.dropout)
        x = drop(encoded.values, train=train)
        values = phrase_vectors(x, encoded.mask, self.widths, self.filters, self.dtype)
        summary = values.max(axis=1)  # zero for a row of pads, since relu is not negative
        return Encoded(values, encoded.mask, drop(summary, train=train))


TINY = PhraseEncoder(
    BertEncoder(Words(vocabulary=9), layers=1, dim=8, heads=2, hidden=12, norm="pre", positions="sinusoidal"),
    widths=(2, 3),
    filters=6,
)
