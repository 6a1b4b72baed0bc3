"""Recurrent language model (Zaremba et al. 2014, "Recurrent neural network regularization")."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.layers.dense import Dense, product
from seqlab.layers.dropout import Dropout
from seqlab.layers.hypotheses import reorder, repeat
from seqlab.layers.recurrent import RecurrentStack
from seqlab.types import Tokens

KIND = "generator"


class RecurrentLM(nn.Module):
    """Language model. Its state may be carried from one stretch of a stream to the next."""

    vocabulary: int = 0
    cell: str = "lstm"
    """rnn, irnn, lstm or gru."""
    layers: int = 2
    dim: int = 650
    dropout: float = 0.5
    tie: bool = False
    """Whether the embedding table is the output projection too."""
    residual: bool = False
    """Adds a layer's input to its output, from the second layer on."""
    layer_norm: bool = False
    forget_bias: float = 1.0
    """What the bias of an LSTM's forget gate begins with."""
    reset: str = "after"
    """Where a GRU's reset gate stands: "before" or "after" the recurrent product."""
    dtype: str = "float32"
    """What the operands of products with parameters are rounded to; all else is float32."""

    def setup(self):
        self.table = self.param("table", nn.initializers.normal(self.dim**-0.5), (self.vocabulary, self.dim))
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
        )
        self.drop = Dropout(self.dropout)
        self.bias = self.param("bias", nn.initializers.zeros, (self.vocabulary,))
        if not self.tie:
            self.output = Dense("bd,dv->bv", (self.dim, self.vocabulary), dtype=self.dtype)

    def embed(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return self.table[ids] * self.dim**0.5

    def features(
        self, inputs: None, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        x, carry = self.stack(self.embed(prefix.ids), prefix.mask, carry, segments=prefix.segments, train=train)
        return self.drop(x, train=train), carry

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        flat = features.reshape(-1, self.dim)
        logits: Any = product("bd,vd->bv", flat, self.table, self.dtype) if self.tie else self.output(flat)
        return (logits + self.bias).reshape(*features.shape[:-1], self.vocabulary)

    def start(self, inputs: None, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        past = self.embed(prompt.ids[:, :-1])
        _, state = self.stack(past, prompt.mask[:, :-1])
        return {}, repeat(state, hypotheses)

    def step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        x, state = self.stack.step(self.embed(token), state)
        return self.project(x), state

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
