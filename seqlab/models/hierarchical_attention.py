"""Words to sentences to a document, with attention at both levels, as a classifier (Yang et al. 2016)."""

from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import Embedding
from seqlab.layers.hierarchy import Pool, members, segments_of
from seqlab.layers.recurrent import Bidirectional
from seqlab.system.checks import check_minimum
from seqlab.types import Classifier, Tokens


class HierarchicalAttention(nn.Module, Classifier):
    """Document classifier. Vocabulary and classes are 0 in a config."""

    source_vocabulary: int = 0
    classes: int = 0
    cell: str = "gru"
    """rnn, irnn, lstm or gru."""
    dim: int = 200
    """Width of the embeddings."""
    hidden: int = 50
    """Width of one direction of an encoder."""
    sentences: int = 32
    """Most sentences of a document; what follows counts to the last one."""
    dropout: float = 0.3
    dtype: str = "float32"
    """What the operands of products with parameters are rounded to; all else is float32."""

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 2}

    @nn.compact
    def classify(self, inputs: Tokens, *, train: bool) -> Float[Array, "B C"]:
        check_minimum("sentences", self.sentences, 1)
        encoder = (self.cell, 1, self.dim, self.hidden, self.dropout, self.dtype)
        width = 2 * self.hidden
        x = Embedding(self.source_vocabulary, self.dim, name="words")(inputs.ids)
        x, _ = Bidirectional(*encoder, name="word_encoder")(x, inputs.mask, segments=segments_of(inputs), train=train)
        parts = members(inputs, self.sentences)
        x = Pool(width, self.dtype, name="word_attention")(x, parts)
        real = parts.any(-1)
        encoder = (self.cell, 1, width, self.hidden, self.dropout, self.dtype)
        x, _ = Bidirectional(*encoder, name="sentence_encoder")(x, real, train=train)
        x = Pool(width, self.dtype, name="sentence_attention")(x, real[:, None, :])[:, 0]
        x = Dropout(self.dropout)(x, train=train)
        return Dense("bh,hc->bc", (width, self.classes), bias=True, dtype=self.dtype, name="output")(x)


TINY = HierarchicalAttention(source_vocabulary=9, classes=3, dim=8, hidden=6, sentences=4)
VARIANTS = (TINY.clone(cell="lstm", sentences=2),)
