"""The encoder of BERT (Devlin et al. 2019): token types, a learned summary position and layers of a Transformer."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.axes import declare_axes
from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import Embedding, Positions, TiedEmbedding, check_tie, read_source
from seqlab.layers.norm import LayerNorm
from seqlab.layers.summary import mean_of_real
from seqlab.layers.transformer import Stack
from seqlab.readers.words import Words
from seqlab.system.checks import check_choice
from seqlab.types import Encoded, Inputs, TextEncoder, Tokens

ZERO_GRADIENTS = ("['key']['bias']",)  # adds a constant to all scores of a query, which softmax cancels


class BertEncoder(nn.Module, TextEncoder):
    """There is a position before the first token, like [CLS] in the paper. The inputs do not contain it, so any task
    can use this encoder. Where a row is a pair of texts, `types` mark the second one.
    """

    reader: nn.Module = Words()
    layers: int = 12
    """Number of layers."""
    dim: int = 768
    """Width of the encoder."""
    heads: int = 12
    """Number of attention heads."""
    hidden: int = 3072
    """Number of hidden units of the feed-forward layer."""
    dropout: float = 0.1
    """Dropout rate."""
    norm: str = "post"
    """Place of layer normalization: "pre", before each residual branch, or "post", after each residual sum."""
    activation: str = "gelu"
    """Activation function of the feed-forward layer: relu, gelu or swish."""
    positions: str = "learned"
    """Type of position embeddings: "sinusoidal" or "learned"."""
    max_length: int = 512
    """Maximum number of positions, including that of the summary, if they are learned."""
    summary: str = "first"
    """Summary: "first", the output at the first position, which next-sentence prediction trains, or "mean", the mean
    of all outputs."""
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
        """The maximum number of tokens, without the position of the summary; None: unlimited."""
        return self.max_length - 1 if self.positions == "learned" else None

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 1}

    def setup(self):
        check_choice("summary", self.summary, ("first", "mean"))
        check_tie("all", self.reader, self.reader.vocabulary)
        self.words = TiedEmbedding(self.reader.vocabulary, self.dim, True, self.dtype, bias=False)
        self.types = Embedding(2, self.dim)
        self.source_positions = Positions(self.positions, self.dim, self.max_length, deviation=1.0)
        self.first = self.param("first", nn.initializers.normal(1.0), (self.dim,))
        declare_axes(self, "first", ("width",))
        self.embedding_norm = LayerNorm("width")
        sizes = (self.layers, self.dim, self.heads, self.hidden, self.dropout, self.dropout)
        options: Any = {"dtype": self.dtype, "stochastic_depth": self.stochastic_depth, "adapter": self.adapter}
        self.stack = Stack(*sizes, self.norm, self.activation, True, **options)
        self.drop = Dropout(self.dropout)

    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        x, mask = read_source(self.reader, inputs, self.dim, self.words.embed)
        types = (
            inputs.types if isinstance(inputs, Tokens) and inputs.types is not None else jnp.zeros_like(inputs.ids)
        )
        first = jnp.broadcast_to(self.first, (x.shape[0], 1, self.dim))
        x = jnp.concatenate([first, x + self.types(types)], axis=1)
        real = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        x = self.embedding_norm(x + self.source_positions.of_rows(real))
        x = self.stack.encode(x, real, train=train)
        summary = x[:, 0] if self.summary == "first" else mean_of_real(x, real)
        return Encoded(x[:, 1:], mask, summary)

    def project(self, values: Float[Array, "... D"]) -> jax.Array:
        return self.words.project(values)


TINY = BertEncoder(Words(vocabulary=9), layers=2, dim=8, heads=2, hidden=12, norm="pre", positions="sinusoidal")
VARIANTS = (
    TINY.clone(norm="post", activation="relu", positions="learned", max_length=24, summary="mean", adapter=3),
)
