"""Recurrent encoder-decoder without attention that reads the source backwards (Sutskever et al. 2014)."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import TiedEmbedding, check_tie, read_source
from seqlab.layers.hypotheses import reorder, repeat
from seqlab.layers.recurrent import RecurrentStack
from seqlab.readers.words import Words
from seqlab.types import Generator, Inputs, Tokens


class Sutskever(nn.Module, Generator):
    """The decoder starts from the final state of the encoder and has no other access to the source."""

    reader: nn.Module = Words()
    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    cell: str = "lstm"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    layers: int = 2
    """Number of layers of the encoder, and of the decoder."""
    dim: int = 512
    """Width of the model."""
    dropout: float = 0.2
    """Dropout rate."""
    tie: str = "all"
    """Shared embedding tables: "all" (source, target and output), "target" (target and output) or "none".
    "all" needs a joint vocabulary."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""
    remat: bool = False
    """Recompute the activations of the layers in the backward pass instead of storing them.
    The CPU compiler stores them anyway."""

    @property
    def shares_table(self) -> bool:
        return self.tie == "all"

    def setup(self):
        check_tie(self.tie, self.reader, self.vocabulary)
        self.words = TiedEmbedding(self.vocabulary, self.dim, self.tie != "none", self.dtype)
        sizes = (self.cell, self.layers, self.dim, self.dim, self.dropout)
        self.encoder = RecurrentStack(*sizes, dtype=self.dtype, remat=self.remat)
        self.decoder = RecurrentStack(*sizes, dtype=self.dtype, remat=self.remat)
        self.drop = Dropout(self.dropout)

    def encode(self, inputs: Inputs, *, train: bool = False) -> Any:
        """Returns the states after the first token, which is read last."""
        x, mask = read_source(self.reader, inputs, self.dim, self.words.embed if self.shares_table else None)
        return self.encoder(x, mask, reverse=True, train=train)[1]

    def features(
        self, inputs: Inputs, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        states = self.encode(inputs, train=train)
        x, _ = self.decoder(self.words.embed(prefix.ids), prefix.mask, states, train=train)
        return self.drop(x, train=train), carry

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.words.project(features)

    def start(self, inputs: Inputs, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        past = self.words.embed(prompt.ids[:, :-1])
        _, states = self.decoder(past, prompt.mask[:, :-1], self.encode(inputs))
        return {}, repeat(states, hypotheses)

    def step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        x, state = self.decoder.step(self.words.embed(token), state)
        return self.project(x), state

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 2 * length - 1, "target": length - 1}

    @nn.nowrap
    def reorder(self, state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state, parents)


TINY = Sutskever(Words(vocabulary=9), vocabulary=7, dim=8, tie="target")
VARIANTS = (TINY.clone(cell="gru", layers=1, tie="none"),)
