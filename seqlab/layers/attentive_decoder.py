"""A recurrent decoder of one layer with attention to a memory at every step (Bahdanau et al. 2015, Luong et al.
2015).

The model defines the memory and the attention, a function from a query to a context. Everything else that models with
such a decoder share is defined here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import TiedEmbedding
from seqlab.layers.hypotheses import reorder, repeat
from seqlab.layers.recurrent import GATES, Recurrent
from seqlab.layers.scan import Kernels, Multiply, multiplier, scan
from seqlab.types import Generator, Inputs, Tokens

# query [B K D] -> context [B K E] and attention weights [B K S]
Attend = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class AttentiveDecoder(nn.Module):
    """Maps tokens to logits. With y the embedding of the last token, s the state of the cell, and c the context that
    `attend` returns:

    early    c = attend(s'), s = cell([y, c], s'), features tanh(W [y, s, c] + b)     (Bahdanau)
    late     s = cell([y, a'], s'), c = attend(s), features a = tanh(W [s, c] + b)    (Luong, with input feeding)

    where ' marks values of the previous step. The state of K hypotheses has leaves [B K D].
    """

    vocabulary: int
    cell: str
    dim: int
    memory_dim: int
    early: bool
    dropout: float
    tie: bool
    """Tie the output projection to the embedding table."""
    dtype: str = "float32"

    def setup(self):
        dim, dtype = self.dim, self.dtype
        self.words = TiedEmbedding(self.vocabulary, dim, self.tie, dtype)
        self.layer = Recurrent(self.cell, dim, dim, dtype=dtype)
        self.bridge = Dense("be,ed->bd", (self.memory_dim, dim * len(self.layer.initial())), bias=True, dtype=dtype)
        feed_width, combined_width = (self.memory_dim, 2 * dim) if self.early else (dim, dim)
        # Every position reads these: if they were split, the devices would synchronize at every position.
        whole: Any = {"dtype": dtype, "axes": (None, None)}
        self.feed = Dense("bkd,dg->bkg", (feed_width, GATES[self.cell] * dim), **whole)
        self.combine = Dense("btf,fd->btd", (combined_width + self.memory_dim, dim), bias=True, **whole)
        self.drop = Dropout(self.dropout)

    def begin(self, summary: Float[Array, "B E"]) -> Any:
        """Returns the state [B 1 D] before the first step, given the summary of an encoder."""
        begin = jnp.tanh(self.bridge(summary))[:, None]
        cell = tuple(jnp.split(begin, begin.shape[-1] // self.dim, axis=-1))
        return {"cell": cell} if self.early else {"cell": cell, "attended": jnp.zeros_like(cell[0])}

    def kernels(self) -> Kernels:
        """Returns the kernels of the recurrent layer and the kernel of its fed input (`feed`)."""
        return {**self.layer.kernels(), "feed": self.feed.kernel}

    def multiplier(self) -> Multiply:
        return multiplier(self.kernels(), self.dtype)

    def advance(
        self, gates: Float[Array, "B K G"], state: Any, attend: Attend, multiply: Multiply
    ) -> tuple[Any, jax.Array, jax.Array]:
        """Advances by one position, where `gates` is the token's contribution to the cell. Returns the state, the
        context and the attention weights. `multiply` multiplies by the kernels.
        """
        if self.early:
            context, weights = attend(state["cell"][0])
            cell = self.layer.advance(gates + multiply("feed", context), state["cell"], multiply)
            return {"cell": cell}, context, weights
        cell = self.layer.advance(gates + multiply("feed", state["attended"]), state["cell"], multiply)
        context, weights = attend(cell[0])
        attended = jnp.tanh(self.combine(jnp.concatenate([cell[0], context], axis=-1)))
        return {"cell": cell, "attended": attended}, context, weights

    def output(self, y: Float[Array, "B T D"], state: Any, context: Float[Array, "B T E"]) -> Float[Array, "B T D"]:
        if self.early:
            return jnp.tanh(self.combine(jnp.concatenate([y, state["cell"][0], context], axis=-1)))
        return state["attended"]

    def __call__(
        self, prefix: Tokens, state: Any, attend: Attend, *, train: bool = False
    ) -> tuple[Float[Array, "B T D"], Any, Float[Array, "B T P"]]:
        """Runs all positions from `state`. Returns features, the last state and the attention weights. Pads do not
        change the state.
        """
        y = self.drop(self.words.embed(prefix.ids), train=train)
        gates = self.layer.project(y).swapaxes(0, 1)[:, :, None]
        if self.is_initializing():
            self.advance(gates[0], state, attend, self.multiplier())  # the body of a scan cannot create parameters

        def body(multiply: Multiply, state: Any, inputs: Any) -> tuple[Any, Any]:
            gates, real = inputs
            new, context, weights = self.advance(gates, state, attend, multiply)
            new = jax.tree.map(lambda n, s: jnp.where(real, n, s), new, state)
            return new, (new, context, weights)

        xs = gates, prefix.mask.T[..., None, None]
        state, outputs = scan(body, self.kernels(), state, xs, dtype=self.dtype)
        states, contexts, weights = jax.tree.map(lambda x: x[:, :, 0].swapaxes(0, 1), outputs)
        return self.drop(self.output(y, states, contexts), train=train), state, weights

    def embed(self, ids: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        return self.words.embed(ids)

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.words.project(features)

    def start(self, prompt: Tokens, state: Any, attend: Attend, hypotheses: int) -> Any:
        """Returns the state of K hypotheses after the prompt except its last token."""
        past = Tokens(prompt.ids[:, :-1], prompt.mask[:, :-1])
        _, state, _ = self(past, state, attend)
        return repeat(jax.tree.map(lambda x: x[:, 0], state), hypotheses)

    def step(
        self, token: Int[Array, "B K"], state: Any, attend: Attend
    ) -> tuple[Float[Array, "B K V"], Any, Float[Array, "B K P"]]:
        """Advances K hypotheses by one position. Returns logits, the new state and the attention weights."""
        y = self.words.embed(token)
        state, context, weights = self.advance(self.layer.project(y), state, attend, self.multiplier())
        return self.project(self.output(y, state, context)), state, weights


class AttentiveGenerator(nn.Module, Generator):
    """The base of generators whose `decoder` is an `AttentiveDecoder`. A model defines `encode_memory` and `attend`.
    (`self` is typed as Any in methods that use the decoder, since the model's `setup` creates it.)
    """

    def encode_memory(self, inputs: Inputs, *, train: bool = False) -> tuple[Any, Any]:
        """Returns the memory and the state of the decoder before the first step."""
        raise NotImplementedError

    def attend(self, memory: Any) -> Attend:
        raise NotImplementedError

    def decode(self: Any, inputs: Inputs, prefix: Tokens, *, train: bool = False) -> tuple[jax.Array, Any, jax.Array]:
        """Returns features, the last state of the decoder and the attention weights."""
        memory, state = self.encode_memory(inputs, train=train)
        return self.decoder(prefix, state, self.attend(memory), train=train)

    def features(
        self, inputs: Inputs, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        return self.decode(inputs, prefix, train=train)[0], carry

    def attention_weights(self, inputs: Inputs, prefix: Tokens) -> Float[Array, "L B H T P"]:
        """Returns the attention over the source tokens in a forced pass, of one layer with one head."""
        return self.decode(inputs, prefix)[2][None, :, None]

    def project(self: Any, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.decoder.project(features)

    def start(self: Any, inputs: Inputs, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        memory, state = self.encode_memory(inputs)
        return memory, self.decoder.start(prompt, state, self.attend(memory), hypotheses)

    def step(
        self: Any, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        return self.attentive_step(memory, state, token, t)[:2]

    def attentive_step(
        self: Any, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any, Float[Array, "B K P"]]:
        """Like `step`, but also returns the attention over the source tokens."""
        return self.decoder.step(token, state, self.attend(memory))

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 1, "target": length - 1}

    @nn.nowrap
    def reorder(self, state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state, parents)
