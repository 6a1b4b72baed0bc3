"""Bidirectional recurrent layers on a learned mixture of the layers of another encoder: ELMo (Peters et al. 2018)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqlab.encoders.bilm import BilmEncoder
from seqlab.layers.axes import declare_axes
from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import Embedding
from seqlab.layers.head import StackedEncoder, encode_inputs
from seqlab.layers.recurrent import Bidirectional
from seqlab.readers.words import Words
from seqlab.system.errors import SeqlabError
from seqlab.types import Encoded, Inputs, Tokens


class ElmoEncoder(StackedEncoder):
    """The input of the recurrent layers is gamma sum_l softmax(s)_l h_l, where h_l are the layers of `encoder`, which
    is usually pre-trained and frozen. `s` and `gamma` are learned. As in the paper, embeddings that only the task
    trains can be concatenated with it.
    """

    encoder: nn.Module = BilmEncoder()
    words: int = 0
    """Width of the embeddings of the task, which are concatenated with the mixture; 0: none."""
    cell: str = "lstm"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    layers: int = 1
    """Number of bidirectional layers."""
    dim: int = 256
    """Width of each direction."""
    dropout: float = 0.3
    """Dropout rate of the input of each layer, and of the outputs."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": length - 1}

    @nn.compact
    def encode(self, inputs: Inputs, *, train: bool) -> Encoded:
        encoded = encode_inputs(self.encoder, inputs, train=train)
        if encoded.layers is None:
            raise SeqlabError(
                f"{type(self.encoder).__name__} does not return its layers: use BilmEncoder, for example"
            )
        scores = self.param("mixture", nn.initializers.zeros, (len(encoded.layers),))
        gamma = self.param("gamma", nn.initializers.ones, ())
        declare_axes(self, "mixture", (None,))
        declare_axes(self, "gamma", ())
        x = gamma * jnp.tensordot(jax.nn.softmax(scores), encoded.layers, axes=1)
        if self.words:
            if not isinstance(inputs, Tokens):
                raise SeqlabError("the embeddings of the task need a source of tokens: set words of the encoder to 0")
            task_words = Embedding(self.encoder.reader.vocabulary, self.words, name="task_words")
            x = jnp.concatenate([x, task_words(inputs.ids)], axis=-1)
        sizes = (self.cell, self.layers, x.shape[-1], self.dim, self.dropout, self.dtype)
        x, ends = Bidirectional(*sizes, name="stack")(x, encoded.mask, train=train)
        summary = jnp.concatenate([state[0] for state in ends[-1]], axis=-1)
        drop = Dropout(self.dropout)
        return Encoded(drop(x, train=train), encoded.mask, drop(summary, train=train))


TINY = ElmoEncoder(BilmEncoder(Words(vocabulary=9), dim=8), dim=6)
VARIANTS = (TINY.clone(words=5),)
