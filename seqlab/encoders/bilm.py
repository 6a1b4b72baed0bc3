"""The bidirectional language model of ELMo (Peters et al. 2018): recurrent layers for each direction."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.embed import TiedEmbedding, check_tie, read_source
from seqlab.layers.recurrent import RecurrentStack
from seqlab.layers.summary import last_real
from seqlab.readers.words import Words
from seqlab.types import Encoded, Inputs, TextEncoder


class BilmEncoder(nn.Module, TextEncoder):
    """The directions share only the embeddings, so that neither sees the tokens that it predicts. The values are the
    top outputs of both, forward first. `Encoded.layers` has `layers` + 1 entries: first the embeddings, concatenated
    with themselves, then the outputs of each layer. The summary is the last output of each direction.
    """

    reader: nn.Module = Words()
    cell: str = "lstm"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    layers: int = 2
    """Number of layers of each direction."""
    dim: int = 256
    """Width of each direction and of the embeddings."""
    dropout: float = 0.1
    """Dropout rate of the input of each layer."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def causal(self) -> bool:
        return False

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": length - 1}

    def setup(self):
        check_tie("all", self.reader, self.reader.vocabulary)
        self.words = TiedEmbedding(self.reader.vocabulary, self.dim, True, self.dtype, bias=False)
        sizes = (self.cell, 1, self.dim, self.dim, self.dropout)
        self.forward = [RecurrentStack(*sizes, dtype=self.dtype) for _ in range(self.layers)]
        self.backward = [RecurrentStack(*sizes, dtype=self.dtype) for _ in range(self.layers)]

    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        x, mask = read_source(self.reader, inputs, self.dim, self.words.embed)
        forward = backward = x
        layers = [jnp.concatenate([x, x], axis=-1)]
        for ahead, back in zip(self.forward, self.backward, strict=True):
            forward, _ = ahead(forward, mask, train=train)
            backward, _ = back(backward, mask, reverse=True, train=train)
            layers.append(jnp.concatenate([forward, backward], axis=-1))
        summary = jnp.concatenate([last_real(forward, mask), backward[:, 0]], axis=-1)
        return Encoded(layers[-1], mask, summary, jnp.stack(layers))

    def project(self, values: Float[Array, "... D"]) -> jax.Array:
        return self.words.project(values)


TINY = BilmEncoder(Words(vocabulary=9), dim=8)
VARIANTS = (TINY.clone(cell="gru", layers=1),)
