"""Recurrent encoder-decoder with attention (Bahdanau et al. 2015), or with that of Luong et al. (2015)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.errors import SeqlabError
from seqlab.layers.attention import Alignment
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import Table, Vocabulary, check_tie
from seqlab.layers.hypotheses import reorder, repeat
from seqlab.layers.recurrent import GATES, Bidirectional, Recurrent
from seqlab.types import Tokens

KIND = "generator"


class Bahdanau(nn.Module):
    """A bidirectional encoder; a decoder of one layer that looks at all of its outputs at every step.

    With y the embedding of the last token, s the decoder's state, and c the source's outputs weighted by attention:

    additive                 c = attention(s'), s = cell([y, c], s'), features tanh(W [y, s, c])
    dot, general, scaled     s = cell([y, a'], s'), c = attention(s), features a = tanh(W [s, c])

    where ' is of the step before.
    """

    source_vocabulary: int = 0
    vocabulary: int = 0
    cell: str = "gru"
    """rnn, irnn, lstm or gru."""
    encoder_layers: int = 1
    dim: int = 512
    """Width of embeddings, of the decoder, and of both directions of the encoder together."""
    attention: str = "additive"
    """additive, or Luong's: dot, general or scaled."""
    dropout: float = 0.2
    tie: str = "all"
    """"all": source, target and output share one table (a joint vocabulary); "target": target and output; "none"."""
    dtype: str = "float32"
    """What the operands of products with parameters are rounded to; all else is float32."""

    def setup(self):
        check_tie(self.tie, self.source_vocabulary, self.vocabulary)
        if self.dim % 2:
            raise SeqlabError(f"the width must be even for the two directions of the encoder, not {self.dim}")
        dim, dtype = self.dim, self.dtype
        self.words = Vocabulary(self.vocabulary, dim, self.tie != "none", dtype)
        if self.tie != "all":
            self.source_words = Table(self.source_vocabulary, dim)
        self.encoder = Bidirectional(self.cell, self.encoder_layers, dim, dim // 2, self.dropout, dtype)
        self.decoder = Recurrent(self.cell, dim, dim, dtype=dtype)
        self.alignment = Alignment(self.attention, dim, dim, dtype)
        self.bridge = Dense("be,ed->bd", (dim // 2, dim * len(self.decoder.initial())), bias=True, dtype=dtype)
        self.feed = Dense("bkd,dg->bkg", (dim, GATES[self.cell] * dim), dtype=dtype)
        self.combine = Dense("btf,fd->btd", ((3 if self.early else 2) * dim, dim), bias=True, dtype=dtype)
        self.drop = Dropout(self.dropout)

    @property
    def early(self) -> bool:
        """Whether attention comes before the cell."""
        return self.attention == "additive"

    def remember(self, inputs: Tokens, *, train: bool = False) -> tuple[Any, Any]:
        """The memory, and the decoder's state [B 1 D] before the first step."""
        x = self.words.embed(inputs.ids) if self.tie == "all" else self.source_words(inputs.ids)
        values, ends = self.encoder(x, inputs.mask, train=train)
        _, backward = ends[-1]  # its last state has read everything up to the first token
        begin = jnp.tanh(self.bridge(backward[0]))[:, None]
        cell = tuple(jnp.split(begin, begin.shape[-1] // self.dim, axis=-1))
        state = {"cell": cell} if self.early else {"cell": cell, "attended": jnp.zeros_like(cell[0])}
        return {"keys": self.alignment.keys(values), "values": values, "mask": inputs.mask}, state

    def look(self, query: Float[Array, "B K D"], memory: Any) -> tuple[Float[Array, "B K E"], Float[Array, "B K S"]]:
        """The context of a query, and the weights that it was made with."""
        weights = self.alignment.weights(query, memory["keys"], memory["mask"])
        return jnp.einsum("bks,bse->bke", weights, memory["values"]), weights

    def advance(self, gates: Float[Array, "B K G"], state: Any, memory: Any) -> tuple[Any, jax.Array, jax.Array]:
        """One position, `gates` being what the token alone gives the cell: state, context, weights."""
        if self.early:
            context, weights = self.look(state["cell"][0], memory)
            return {"cell": self.decoder.advance(gates + self.feed(context), state["cell"])}, context, weights
        cell = self.decoder.advance(gates + self.feed(state["attended"]), state["cell"])
        context, weights = self.look(cell[0], memory)
        attended = jnp.tanh(self.combine(jnp.concatenate([cell[0], context], axis=-1)))
        return {"cell": cell, "attended": attended}, context, weights

    def output(self, y: Float[Array, "B T D"], state: Any, context: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        if self.early:
            return jnp.tanh(self.combine(jnp.concatenate([y, state["cell"][0], context], axis=-1)))
        return state["attended"]

    def decode(
        self, y: Float[Array, "B T D"], mask: Bool[Array, "B T"], memory: Any, state: Any
    ) -> tuple[Float[Array, "B T D"], Any, Float[Array, "B T S"]]:
        """All positions after `state`: features, the last state, attention weights. A pad leaves a state as it is."""
        gates = self.decoder.project(y).swapaxes(0, 1)[:, :, None]
        if self.is_initializing():
            self.advance(gates[0], state, memory)  # a scan's body must not make parameters

        def body(state: Any, now: Any) -> tuple[Any, Any]:
            gates, real = now
            new, context, weights = self.advance(gates, state, memory)
            new = jax.tree.map(lambda n, s: jnp.where(real, n, s), new, state)
            return new, (new, context, weights)

        state, outputs = jax.lax.scan(body, state, (gates, mask.T[..., None, None]))
        states, contexts, weights = jax.tree.map(lambda x: x[:, :, 0].swapaxes(0, 1), outputs)
        return self.output(y, states, contexts), state, weights

    def features(
        self, inputs: Tokens, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        memory, state = self.remember(inputs, train=train)
        y = self.drop(self.words.embed(prefix.ids), train=train)
        x, _, _ = self.decode(y, prefix.mask, memory, state)
        return self.drop(x, train=train), carry

    def attention_weights(self, inputs: Tokens, prefix: Tokens) -> Float[Array, "B T S"]:
        """Attention over the source in a forced pass."""
        return self.decode(self.words.embed(prefix.ids), prefix.mask, *self.remember(inputs))[2]

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.words.project(features)

    def start(self, inputs: Tokens, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        memory, state = self.remember(inputs)
        _, state, _ = self.decode(self.words.embed(prompt.ids[:, :-1]), prompt.mask[:, :-1], memory, state)
        return memory, repeat(jax.tree.map(lambda x: x[:, 0], state), hypotheses)

    def step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        y = self.words.embed(token)
        state, context, _ = self.advance(self.decoder.project(y), state, memory)
        return self.project(self.output(y, state, context)), state

    @nn.nowrap
    def reorder(self, state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state, parents)


TINY = Bahdanau(source_vocabulary=9, vocabulary=7, dim=8, tie="target")
VARIANTS = (
    TINY.clone(cell="lstm", encoder_layers=2, attention="general", tie="none"),
    TINY.clone(attention="dot"),
    TINY.clone(attention="scaled"),
)
