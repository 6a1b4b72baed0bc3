"""Recurrent encoder-decoder with attention (Bahdanau et al. 2015), or with that of Luong et al. (2015)."""

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
    """A bidirectional encoder, and a decoder that looks at all of its outputs at every step.

    Unlike Bahdanau's: a GRU's reset gate stands after the product, both directions of the encoder have their say in
    the decoder's first state, and the features are a tanh and not a maxout layer. Unlike Luong's: the encoder reads
    both ways, and the decoder has one layer, whose first state is a learned map of the encoder's last ones.
    """

    reader: nn.Module = Words()
    vocabulary: int = 0
    cell: str = "gru"
    """rnn, irnn, lstm or gru."""
    encoder_layers: int = 1
    dim: int = 512
    """Width of embeddings, of the decoder, and of both directions of the encoder together."""
    attention: str = "additive"
    """additive, or with Luong's decoder, which looks after its step: dot, general, scaled (dot over sqrt(D))."""
    dropout: float = 0.2
    tie: str = "all"
    """"all": source, target and output share one table (a joint vocabulary); "target": target and output; "none"."""
    dtype: str = "float32"
    """What the operands of products with parameters are rounded to; all else is float32."""

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
        """The memory, and the decoder's state before the first step."""
        x, mask = read_source(self.reader, inputs, self.dim, self.decoder.embed if self.shares_table else None)
        values, ends = self.encoder(x, mask, train=train)
        summary = jnp.concatenate([side[0] for side in ends[-1]], axis=-1)
        memory = {"keys": self.alignment.keys(values), "values": values, "mask": mask}
        return memory, self.decoder.begin(summary)

    def attend(self, memory: Any) -> Attend:
        """Attention over the source's outputs."""

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
