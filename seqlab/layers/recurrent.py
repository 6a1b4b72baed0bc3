"""Recurrent layers. All cells share one scan; the input projection of all positions is one product before it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.axes import declare_axes
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.norm import LayerNorm
from seqlab.layers.scan import Kernels, Multiply, multiplier, scan
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError

GATES = {"rnn": 1, "irnn": 1, "lstm": 4, "gru": 3}

State = tuple[jax.Array, ...]  # (h,), or (h, c) for an LSTM, each [... D]


def check_cell(cell: str) -> None:
    if cell not in GATES:
        raise SeqlabError(f"cell must be one of {', '.join(GATES)}, not {cell!r}")


class Recurrent(nn.Module):
    """A recurrent layer in one direction. W x + b is computed for all positions at once, U h in the scan.

    rnn     h = tanh(W x + U h + b)                                                       (Elman 1990)
    irnn    h = relu(W x + U h + b), initialized with U = I and small W                   (Le et al. 2015)
    lstm    i f g o = W x + U h + b
            c = sigmoid(f) c + sigmoid(i) tanh(g);  h = sigmoid(o) tanh(c)                (Gers et al. 2000)
    gru     r z = sigmoid(W x + U h + b)                                                  (Cho et al. 2014)
            h = z h + (1 - z) tanh(W x + U (r h) + b)        reset "before" the product
            h = z h + (1 - z) tanh(W x + r (U h + b') + b)   reset "after" it, as in cuDNN
    """

    cell: str
    inputs: int
    dim: int
    forget_bias: float = 1.0
    """Initial bias of an LSTM's forget gate."""
    reset: str = "after"
    """Whether a GRU applies its reset gate "before" or "after" the recurrent product."""
    layer_norm: bool = False
    """Apply layer normalization to W x, to U h (all gates together, except a candidate with a separate product), and
    to an LSTM's c where it is read (Ba et al. 2016)."""
    dtype: str = "float32"

    def setup(self):
        check_cell(self.cell)
        if self.reset not in ("before", "after"):
            raise SeqlabError(f"reset must be 'before' or 'after', not {self.reset!r}")
        gates, dim = GATES[self.cell], self.dim
        deviation = 0.001 if self.cell == "irnn" else None
        self.input = Dense("btf,fg->btg", (self.inputs, gates * dim), dtype=self.dtype, deviation=deviation)
        self.recurrent = self.param("recurrent", self._initial_recurrent, (dim, gates * dim))
        self.bias = self.param("bias", self._initial_bias, (gates * dim,))
        # Every position reads it: if it were split, the devices would synchronize at every position.
        declare_axes(self, "recurrent", (None, None))
        declare_axes(self, "bias", (None,))
        if self.cell == "gru" and self.reset == "after":
            self.candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (dim,))
            declare_axes(self, "candidate_bias", (None,))
        if self.layer_norm:
            self.input_norm, self.recurrent_norm = LayerNorm(), LayerNorm()
            if self.cell == "lstm":
                self.cell_norm = LayerNorm()
            if self.cell == "gru" and self.reset == "before":
                self.candidate_norm = LayerNorm()

    def _initial_recurrent(self, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """Returns an orthogonal matrix for each gate (Saxe et al. 2014), or the identity for an IRNN."""
        if self.cell == "irnn":
            return jnp.eye(self.dim)
        keys = jax.random.split(key, GATES[self.cell])
        return jnp.concatenate([nn.initializers.orthogonal()(k, (self.dim, self.dim)) for k in keys], axis=1)

    def _initial_bias(self, key: jax.Array, shape: tuple[int]) -> jax.Array:
        bias = jnp.zeros(shape)
        return bias.at[self.dim : 2 * self.dim].set(self.forget_bias) if self.cell == "lstm" else bias

    def initial(self, *lead: int) -> State:
        """Returns a state of zeros [*lead, D]."""
        return (jnp.zeros((*lead, self.dim)),) * (2 if self.cell == "lstm" else 1)

    def project(self, x: Float[Array, "B T F"]) -> Float[Array, "B T G"]:
        """Returns W x + b, the input of `advance` at each position."""
        x = self.input(x)
        return (self.input_norm(x) if self.layer_norm else x) + self.bias

    def kernels(self) -> Kernels:
        """Returns U, split by the products with the state that use it."""
        if self.cell == "gru" and self.reset == "before":
            gates, candidate = jnp.split(self.recurrent, [2 * self.dim], axis=1)
            return {"gates": gates, "candidate": candidate}
        return {"recurrent": self.recurrent}

    def multiplier(self) -> Multiply:
        return multiplier(self.kernels(), self.dtype)

    def advance(self, x: Float[Array, "... G"], state: State, multiply: Multiply) -> State:
        """Returns the next state. `multiply` multiplies by the kernels."""
        h, d = state[0], self.dim
        if self.cell == "gru" and self.reset == "before":
            recurrent_gates = multiply("gates", h)
            recurrent_gates = self.recurrent_norm(recurrent_gates) if self.layer_norm else recurrent_gates
            r, z = jnp.split(jax.nn.sigmoid(x[..., : 2 * d] + recurrent_gates), 2, axis=-1)
            u = multiply("candidate", r * h)
            candidate = jnp.tanh(x[..., 2 * d :] + (self.candidate_norm(u) if self.layer_norm else u))
            return (z * h + (1 - z) * candidate,)
        u = multiply("recurrent", h)
        u = self.recurrent_norm(u) if self.layer_norm else u
        if self.cell == "gru":
            r, z = jnp.split(jax.nn.sigmoid(x[..., : 2 * d] + u[..., : 2 * d]), 2, axis=-1)
            candidate = jnp.tanh(x[..., 2 * d :] + r * (u[..., 2 * d :] + self.candidate_bias))
            return (z * h + (1 - z) * candidate,)
        if self.cell == "lstm":
            i, f, g, o = jnp.split(x + u, 4, axis=-1)
            c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(self.cell_norm(c) if self.layer_norm else c), c)
        return ((jnp.tanh if self.cell == "rnn" else jax.nn.relu)(x + u),)

    def __call__(
        self,
        x: Float[Array, "B T F"],
        mask: Bool[Array, "B T"],
        state: State | None = None,
        *,
        segments: Int[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T D"], State]:
        """Returns the state h after each position, and the last state. Pads do not change the state, so a reversed
        layer starts at the last real position of each row. The state is reset to zero where a new segment begins.
        """
        gates, real = self.project(x).swapaxes(0, 1), mask.T[..., None]
        zero = self.initial(x.shape[0])
        if self.is_initializing():
            self.advance(gates[0], zero, self.multiplier())  # the body of a scan cannot create parameters
        fresh = None
        if segments is not None:
            beside = jnp.roll(segments, -1 if reverse else 1, axis=1)
            fresh = (segments != beside).T[..., None]  # false everywhere in a row of one segment

        def body(multiply: Multiply, state: State, inputs: Any) -> tuple[State, jax.Array]:
            x, real, fresh = inputs
            if fresh is not None:
                state = tuple(jnp.where(fresh, 0.0, s) for s in state)
            new = self.advance(x, state, multiply)
            state = tuple(jnp.where(real, n, s) for n, s in zip(new, state, strict=True))
            return state, state[0]

        begin, xs = zero if state is None else state, (gates, real, fresh)
        last, outputs = scan(body, self.kernels(), begin, xs, dtype=self.dtype, reverse=reverse)
        return outputs.swapaxes(0, 1), last

    def step(self, x: Float[Array, "B K F"], state: State) -> State:
        """Advances K hypotheses by one position; leaves of the state are [B K D]."""
        return self.advance(self.project(x), state, self.multiplier())


class RecurrentStack(nn.Module):
    """A stack of `layers` layers, with dropout on the input of each and none between steps (Zaremba et al. 2014)."""

    cell: str
    layers: int
    inputs: int
    dim: int
    dropout: float
    residual: bool = False
    """Add the input of each layer to its output, from the second layer on (Wu et al. 2016, section 3.1)."""
    forget_bias: float = 1.0
    reset: str = "after"
    layer_norm: bool = False
    dtype: str = "float32"
    remat: bool = False
    """Recompute the activations of each layer in the backward pass instead of storing them."""

    def setup(self):
        check_minimum("layers", self.layers, 1)
        settings = (self.forget_bias, self.reset, self.layer_norm, self.dtype)
        self.stack = [
            Recurrent(self.cell, self.inputs if i == 0 else self.dim, self.dim, *settings) for i in range(self.layers)
        ]
        self.drop = Dropout(self.dropout)

    def initial(self, *lead: int) -> list[State]:
        return [layer.initial(*lead) for layer in self.stack]

    def __call__(
        self,
        x: Float[Array, "B T F"],
        mask: Bool[Array, "B T"],
        states: list[State] | None = None,
        *,
        segments: Int[Array, "B T"] | None = None,
        reverse: bool = False,
        train: bool = False,
    ) -> tuple[Float[Array, "B T D"], list[State]]:
        def run(layer: Recurrent, x: jax.Array, state: State | None) -> tuple[jax.Array, State]:
            return layer(x, mask, state, segments=segments, reverse=reverse)

        run, after = nn.remat(run) if self.remat and train else run, []
        for i, layer in enumerate(self.stack):
            y, state = run(layer, self.drop(x, train=train), None if states is None else states[i])
            x = x + y if self.residual and i else y
            after.append(state)
        return x, after

    def step(self, x: Float[Array, "B K F"], states: list[State]) -> tuple[Float[Array, "B K D"], list[State]]:
        after = []
        for i, (layer, state) in enumerate(zip(self.stack, states, strict=True)):
            state = layer.step(x, state)
            x = x + state[0] if self.residual and i else state[0]
            after.append(state)
        return x, after


class Bidirectional(nn.Module):
    """A stack of `layers` bidirectional layers; each concatenates its two outputs (Schuster & Paliwal 1997)."""

    cell: str
    layers: int
    inputs: int
    dim: int
    """Width of each direction."""
    dropout: float
    dtype: str = "float32"

    def setup(self):
        check_minimum("encoder_layers", self.layers, 1)
        sizes = [self.inputs, *[2 * self.dim] * (self.layers - 1)]
        self.forward = [Recurrent(self.cell, size, self.dim, dtype=self.dtype) for size in sizes]
        self.backward = [Recurrent(self.cell, size, self.dim, dtype=self.dtype) for size in sizes]
        self.drop = Dropout(self.dropout)

    def __call__(
        self,
        x: Float[Array, "B S F"],
        mask: Bool[Array, "B S"],
        *,
        segments: Int[Array, "B S"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "B S E"], list[tuple[State, State]]]:
        """Returns the outputs, E = 2 D, and the final states of each layer: the forward state after the last position
        and the backward state after the first.
        """
        ends = []
        for forward, backward in zip(self.forward, self.backward, strict=True):
            x = self.drop(x, train=train)
            forward_outputs, last = forward(x, mask, segments=segments)
            backward_outputs, first = backward(x, mask, segments=segments, reverse=True)
            x = jnp.concatenate([forward_outputs, backward_outputs], axis=-1)
            ends.append((last, first))
        return x, ends
