"""A hierarchical attention network: words to sentences to a document, with attention at both levels (Yang et al.
2016).
"""

from flax import linen as nn

from seqlab.layers.hierarchy import document_vector, segments_of
from seqlab.layers.recurrent import Bidirectional
from seqlab.readers.words import Words
from seqlab.types import Encoded, Encoder, Tokens


class HierarchicalEncoder(nn.Module, Encoder):
    """The values are the outputs of the word encoder, which reads each sentence separately. The summary is the pooled
    output of the sentence encoder.
    """

    reader: nn.Module = Words()
    cell: str = "gru"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    dim: int = 200
    """Width of the embeddings."""
    hidden: int = 50
    """Width of one direction of each recurrent encoder."""
    sentences: int = 32
    """Maximum number of sentences; later sentences are merged into the last one."""
    dropout: float = 0.3
    """Dropout rate."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def causal(self) -> bool:
        return False

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 2}

    @nn.compact
    def encode(self, inputs: Tokens, *, train: bool) -> Encoded:
        x, mask = self.reader.read(inputs, self.dim)
        sizes = (self.cell, 1, x.shape[-1], self.hidden, self.dropout, self.dtype)
        words, _ = Bidirectional(*sizes, name="word_encoder")(x, mask, segments=segments_of(inputs), train=train)
        options = (self.sentences, self.cell, self.hidden, self.dropout, self.dtype)
        summary = document_vector(words, inputs, *options, train=train)
        return Encoded(words, mask, summary)


TINY = HierarchicalEncoder(Words(vocabulary=9), dim=8, hidden=6, sentences=4)
VARIANTS = (TINY.clone(cell="lstm", sentences=2),)
