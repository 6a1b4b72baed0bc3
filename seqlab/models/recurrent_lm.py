"""Recurrent language model (Zaremba et al. 2014, "Recurrent neural network regularization")."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import TiedEmbedding
from seqlab.layers.hypotheses import reorder, repeat
from seqlab.layers.recurrent import RecurrentStack
from seqlab.types import Generator, Tokens


class RecurrentLM(nn.Module, Generator):
    """Recurrent language model. Its state can be carried from one segment of a stream to the next."""

    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    cell: str = "lstm"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    layers: int = 2
    """Number of layers."""
    dim: int = 650
    """Width of the model."""
    dropout: float = 0.5
    """Dropout rate."""
    tie: bool = False
    """Tie the output projection to the embedding table."""
    residual: bool = False
    """Add the input of each layer to its output, from the second layer on."""
    layer_norm: bool = False
    """Apply layer normalization within the recurrent layers (Ba et al. 2016)."""
    forget_bias: float = 1.0
    """Initial bias of an LSTM's forget gate."""
    reset: str = "after"
    """Whether a GRU applies its reset gate "before" or "after" the recurrent product."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""
    remat: bool = False
    """Recompute the activations of the layers in the backward pass instead of storing them.
    The CPU compiler stores them anyway."""

    def setup(self):
        self.words = TiedEmbedding(self.vocabulary, self.dim, self.tie, self.dtype)
        self.stack = RecurrentStack(
            self.cell,
            self.layers,
            self.dim,
            self.dim,
            self.dropout,
            self.residual,
            self.forget_bias,
            self.reset,
            self.layer_norm,
            self.dtype,
            self.remat,
        )
        self.drop = Dropout(self.dropout)

    def features(
        self, inputs: None, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        x, carry = self.stack(self.words.embed(prefix.ids), prefix.mask, carry, segments=prefix.segments, train=train)
        return self.drop(x, train=train), carry

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.words.project(features)

    def start(self, inputs: None, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        past = self.words.embed(prompt.ids[:, :-1])
        _, state = self.stack(past, prompt.mask[:, :-1])
        return {}, repeat(state, hypotheses)

    def step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        x, state = self.stack.step(self.words.embed(token), state)
        return self.project(x), state

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"target": length - 1}

    @nn.nowrap
    def reorder(self, state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state, parents)


TINY = RecurrentLM(vocabulary=7, layers=2, dim=8)
VARIANTS = (
    TINY.clone(cell="gru", tie=True),
    TINY.clone(cell="gru", reset="before", layer_norm=True),
    TINY.clone(cell="rnn", residual=True),
    TINY.clone(cell="irnn"),
    TINY.clone(layer_norm=True, forget_bias=0.0),
)
