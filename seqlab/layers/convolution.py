"""Causal, dilated convolutions, for all positions at once and one step at a time, and the blocks made of them.

A block does not say how its convolutions are run: it is given `run(convolution, x)`, which applies one to all
positions, or to the next one with the buffer of its past.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.layers.dense import Dense, product
from seqlab.layers.dropout import Dropout


class CausalConvolution(nn.Module):
    """y[t] = b + the sum over j < kernel of W[j] x[t - j dilation]; before the beginning x is zero.

    The shifted inputs stand side by side, so that all taps are one matrix product.
    """

    inputs: int
    outputs: int
    kernel: int
    dilation: int = 1
    weight_norm: bool = False
    """W = g V / |V|, with a length g for each output (Salimans & Kingma 2016)."""
    dtype: str = "float32"

    def setup(self):
        self.direction = self.param(
            "kernel",
            nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
            (self.kernel * self.inputs, self.outputs),
        )
        if self.weight_norm:
            self.gain = self.param("gain", lambda key: jnp.linalg.norm(self.direction, axis=0))
        self.bias = self.param("bias", nn.initializers.zeros, (self.outputs,))

    @property
    def reach(self) -> int:
        """How far back an output sees: as many inputs the buffer of a step holds."""
        return (self.kernel - 1) * self.dilation

    def mix(self, taps: list[jax.Array]) -> jax.Array:
        """The output of one position from the inputs it sees, the nearest first."""
        weights = self.direction
        if self.weight_norm:
            weights = weights * (self.gain / jnp.linalg.norm(weights, axis=0))
        return product("btf,fg->btg", jnp.concatenate(taps, axis=-1), weights, self.dtype) + self.bias

    def __call__(self, x: Float[Array, "B T F"], segments: Int[Array, "B T"] | None = None) -> Float[Array, "B T G"]:
        """All positions; nothing is seen of another segment."""
        taps = [x]
        for j in range(1, self.kernel):
            tap = shifted(x, j * self.dilation)
            if segments is not None:
                tap = jnp.where((shifted(segments, j * self.dilation) == segments)[..., None], tap, 0.0)
            taps.append(tap)
        return self.mix(taps)

    def start(self, x: Float[Array, "B P F"]) -> Float[Array, "B R F"]:
        """The ring buffer after the inputs `x`: that of position p stands in slot p mod R, R being `reach`."""
        past, size = x.shape[1], self.reach
        buffer = jnp.zeros((x.shape[0], size, x.shape[2]))
        last = range(max(past - size, 0), past)
        return buffer.at[:, jnp.array([p % size for p in last], int)].set(x[:, last.start :]) if size else buffer

    def step(
        self, x: Float[Array, "B K F"], buffer: Float[Array, "B K R F"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K G"], Float[Array, "B K R F"]]:
        """Position t of K hypotheses, and the buffer with its input, which takes the place of the oldest."""
        taps = [x]
        for j in range(1, self.kernel):
            slot = (t - j * self.dilation) % self.reach
            taps.append(jax.lax.dynamic_index_in_dim(buffer, slot, axis=2, keepdims=False))
        if self.reach:
            buffer = jax.lax.dynamic_update_index_in_dim(buffer, x, t % self.reach, axis=2)
        return self.mix(taps), buffer


Run = Callable[[CausalConvolution, jax.Array], jax.Array]


def shifted(x: jax.Array, by: int) -> jax.Array:
    """[B T ...] moved `by` positions to the right; zeros come in."""
    length = x.shape[1]
    return jnp.pad(x, ((0, 0), (by, 0), *[(0, 0)] * (x.ndim - 2)))[:, :length]


class TCNBlock(nn.Module):
    """Two dilated convolutions, weight-normalized, each with ReLU and dropout, and a shortcut (Bai et al. 2018)."""

    inputs: int
    dim: int
    kernel: int
    dilation: int
    dropout: float
    dtype: str = "float32"

    def setup(self):
        rest = (self.dim, self.kernel, self.dilation, True, self.dtype)
        self.first = CausalConvolution(self.inputs, *rest)
        self.second = CausalConvolution(self.dim, *rest)
        if self.inputs != self.dim:
            self.shortcut = Dense("btf,fg->btg", (self.inputs, self.dim), bias=True, dtype=self.dtype)
        self.drop = Dropout(self.dropout)

    def __call__(self, x: Float[Array, "B T F"], run: Run, *, train: bool = False) -> Float[Array, "B T D"]:
        y = self.drop(nn.relu(run(self.first, x)), train=train)
        y = self.drop(nn.relu(run(self.second, y)), train=train)
        return nn.relu(y + (x if self.inputs == self.dim else self.shortcut(x)))


class WaveNetBlock(nn.Module):
    """A gated dilated convolution; its output goes on in a residual branch, and straight to the end of the stack
    (van den Oord et al. 2016, section 2.3 and 2.4).
    """

    dim: int
    kernel: int
    dilation: int
    dropout: float
    dtype: str = "float32"

    def setup(self):
        self.convolution = CausalConvolution(self.dim, 2 * self.dim, self.kernel, self.dilation, dtype=self.dtype)
        self.out = Dense("btd,de->bte", (self.dim, 2 * self.dim), bias=True, dtype=self.dtype)
        self.drop = Dropout(self.dropout)

    def __call__(
        self, x: Float[Array, "B T D"], run: Run, *, train: bool = False
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """What the next block reads, and what skips to the end."""
        filtered, gate = jnp.split(run(self.convolution, self.drop(x, train=train)), 2, axis=-1)
        residual, skipped = jnp.split(self.out(jnp.tanh(filtered) * jax.nn.sigmoid(gate)), 2, axis=-1)
        return x + residual, skipped
