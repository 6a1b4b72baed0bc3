"""A class at every position of a sequence of symbols: any sequence layer, read at each (Bai et al. 2018)."""

from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.dense import Dense
from seqlab.layers.embed import Embedding
from seqlab.layers.sequence import SequenceStack, stack_path
from seqlab.types import Tagger, Tokens


class SequenceTagger(nn.Module, Tagger):
    """A position sees itself and the past. Vocabulary and classes are 0 in a config."""

    source_vocabulary: int = 0
    classes: int = 0
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
    def tag(self, inputs: Tokens, *, train: bool) -> Float[Array, "B S C"]:
        x = Embedding(self.source_vocabulary, self.dim, name="symbols")(inputs.ids)
        stack = SequenceStack(self.layer, self.layers, self.dim, self.kernel, self.dropout, self.dtype, name="stack")
        x = stack(x, inputs.mask, train=train)
        return Dense("bsd,dc->bsc", (self.dim, self.classes), bias=True, dtype=self.dtype, name="output")(x)


TINY = SequenceTagger(source_vocabulary=9, classes=3, dim=8, kernel=3)
VARIANTS = (TINY.clone(layer="tcn", layers=2), TINY.clone(layer="irnn"))
