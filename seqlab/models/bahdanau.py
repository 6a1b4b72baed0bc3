"""Recurrent encoder-decoder with the attention of Bahdanau et al. (2015) or Luong et al. (2015)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.attention import Alignment, masked_softmax
from seqlab.layers.attentive_decoder import Attend, AttentiveDecoder, AttentiveGenerator
from seqlab.layers.embed import check_tie, read_source
from seqlab.layers.recurrent import Bidirectional
from seqlab.readers.words import Words
from seqlab.system.errors import SeqlabError
from seqlab.types import Inputs


class Bahdanau(AttentiveGenerator):
    """A bidirectional encoder, and a decoder that attends to its outputs at every step.

    Differences from Bahdanau et al.: a GRU's reset gate is applied after the product, the initial state of the
    decoder depends on both directions of the encoder, and the features are a tanh layer instead of a maxout layer.
    Differences from Luong et al.: the encoder is bidirectional, and the decoder has one layer, whose initial state is
    a learned map of the final states of the encoder.
    """

    reader: nn.Module = Words()
    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    cell: str = "gru"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    encoder_layers: int = 1
    """Number of encoder layers."""
    dim: int = 512
    """Width of the embeddings and of the decoder, and total width of the two directions of the encoder."""
    attention: str = "additive"
    """Attention score: additive (Bahdanau's decoder), or dot, general or scaled (Luong's decoder).
    scaled is dot divided by sqrt(D)."""
    dropout: float = 0.2
    """Dropout rate."""
    tie: str = "all"
    """Shared embedding tables: "all" (source, target and output), "target" (target and output) or "none".
    "all" needs a joint vocabulary."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def shares_table(self) -> bool:
        return self.tie == "all"

    def setup(self):
        check_tie(self.tie, self.reader, self.vocabulary)
        if self.dim % 2:
            raise SeqlabError(f"the width must be even for the two directions of the encoder, not {self.dim}")
        dim, dtype = self.dim, self.dtype
        self.encoder = Bidirectional(self.cell, self.encoder_layers, dim, dim // 2, self.dropout, dtype)
        early, tie = self.attention == "additive", self.tie != "none"
        self.decoder = AttentiveDecoder(self.vocabulary, self.cell, dim, dim, early, self.dropout, tie, dtype)
        self.alignment = Alignment(self.attention, dim, dim, dtype)

    def encode_memory(self, inputs: Inputs, *, train: bool = False) -> tuple[Any, Any]:
        """Returns the memory and the state of the decoder before the first step."""
        x, mask = read_source(self.reader, inputs, self.dim, self.decoder.embed if self.shares_table else None)
        values, ends = self.encoder(x, mask, train=train)
        summary = jnp.concatenate([side[0] for side in ends[-1]], axis=-1)
        memory = {"keys": self.alignment.keys(values), "values": values, "mask": mask}
        return memory, self.decoder.begin(summary)

    def attend(self, memory: Any) -> Attend:
        """Returns a function that attends to the outputs of the encoder."""

        def attend(query: Float[Array, "B K D"]) -> tuple[Float[Array, "B K D"], Float[Array, "B K P"]]:
            weights = masked_softmax(self.alignment.scores(query, memory["keys"]), memory["mask"][:, None])
            return jnp.einsum("bks,bse->bke", weights, memory["values"]), weights

        return attend


TINY = Bahdanau(Words(vocabulary=9), vocabulary=7, dim=8, tie="target")
VARIANTS = (
    TINY.clone(cell="lstm", encoder_layers=2, attention="general", tie="none"),
    TINY.clone(attention="dot"),
    TINY.clone(attention="scaled"),
)
