"""Attention over the words of each sentence and over the sentences (Yang et al. 2016), on top of another encoder.

`HierarchicalEncoder` learns its word encoder from scratch. Here the word encoder is any encoder, usually a
pre-trained one. It reads the whole document at once, whereas HIBERT (Zhang et al. 2019) reads each sentence
separately.
"""

from flax import linen as nn

from seqlab.encoders.bert import BertEncoder
from seqlab.layers.head import StackedEncoder, encode_inputs
from seqlab.layers.hierarchy import document_vector
from seqlab.readers.words import Words
from seqlab.system.errors import SeqlabError
from seqlab.types import Encoded, Tokens


class SentenceAttentionEncoder(StackedEncoder):
    """The values are those of `encoder`. Their pooled vectors, one for each sentence, are the input of a recurrent
    encoder. The summary is its pooled output.
    """

    encoder: nn.Module = BertEncoder()
    cell: str = "gru"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    hidden: int = 100
    """Width of one direction of the recurrent encoder of the sentences."""
    sentences: int = 32
    """Maximum number of sentences; later sentences are merged into the last one."""
    dropout: float = 0.1
    """Dropout rate of the input of the recurrent encoder."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 2}

    @nn.compact
    def encode(self, inputs: Tokens, *, train: bool) -> Encoded:
        encoded = encode_inputs(self.encoder, inputs, train=train)
        if encoded.mask.shape != inputs.mask.shape:
            raise SeqlabError(
                f"{type(self.encoder).__name__} returns {encoded.mask.shape[1]} positions for "
                f"{inputs.mask.shape[1]} tokens: sentences need a vector for each token"
            )
        options = (self.sentences, self.cell, self.hidden, self.dropout, self.dtype)
        summary = document_vector(encoded.values, inputs, *options, train=train)
        return Encoded(encoded.values, encoded.mask, summary)


TINY = SentenceAttentionEncoder(
    BertEncoder(Words(vocabulary=9), layers=1, dim=8, heads=2, hidden=12, norm="pre", positions="sinusoidal"),
    hidden=6,
    sentences=4,
)
