"""The encoder of a Transformer (Vaswani et al. 2017)."""

from typing import Any

from flax import linen as nn

from seqlab.layers.embed import Positions, read_source
from seqlab.layers.transformer import Stack
from seqlab.readers.words import Words
from seqlab.types import Encoded, Encoder, Inputs

ZERO_GRADIENTS = ("['key']['bias']",)  # adds a constant to all scores of a query, which softmax cancels


class TransformerEncoder(nn.Module, Encoder):
    """Each position attends to all real positions. The summary is the output at the first position."""

    reader: nn.Module = Words()
    layers: int = 6
    """Number of layers."""
    dim: int = 512
    """Width of the encoder."""
    heads: int = 8
    """Number of attention heads."""
    hidden: int = 2048
    """Number of hidden units of the feed-forward layer."""
    dropout: float = 0.1
    """Dropout rate."""
    norm: str = "pre"
    """Place of layer normalization: "pre", before each residual branch, or "post", after each residual sum."""
    activation: str = "relu"
    """Activation function of the feed-forward layer: relu, gelu or swish."""
    biases: bool = False
    """Add biases to the projections of attention."""
    positions: str = "sinusoidal"
    """Type of position embeddings: "sinusoidal" or "learned"."""
    max_length: int = 1024
    """Maximum number of positions, if they are learned."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""
    stochastic_depth: float = 0.0
    """Probability that a residual branch of the last layer is dropped in a row (Huang et al. 2016).
    It grows linearly with depth from the first layer."""
    adapter: int = 0
    """Number of hidden units of adapters, which are added to each residual branch (Houlsby et al. 2019); 0: none."""

    @property
    def causal(self) -> bool:
        return False

    @property
    def longest(self) -> int | None:
        return self.max_length if self.positions == "learned" else None

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 1}

    @nn.compact
    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        x, mask = read_source(self.reader, inputs, self.dim)
        x = x + Positions(self.positions, self.dim, self.max_length, name="source_positions").of_rows(mask)
        sizes = (self.layers, self.dim, self.heads, self.hidden, self.dropout, self.dropout)
        settings = (self.norm, self.activation, self.biases)
        options: Any = {"dtype": self.dtype, "stochastic_depth": self.stochastic_depth, "adapter": self.adapter}
        x = Stack(*sizes, *settings, **options, name="stack").encode(x, mask, train=train)
        return Encoded(x, mask, x[:, 0])


TINY = TransformerEncoder(Words(vocabulary=9), layers=2, dim=8, heads=2, hidden=12)
VARIANTS = (TINY.clone(norm="post", positions="learned", max_length=16, biases=True, adapter=3),)
