"""Dilated convolutions, causal ones for all positions at once and one step at a time, and the blocks made of them.

A block does not say how its convolutions are run: it is given `run(convolution, x)`, which applies one to all
positions, or to the next one with the buffer of its past.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.axes import declare_axes
from seqlab.layers.dense import Dense, product
from seqlab.layers.dropout import Dropout


class Convolution(nn.Module):
    """y[t] = b + the sum over j < kernel of W[j] x[t + ahead - j dilation]; before the beginning and behind the end x
    is zero. With nothing `ahead` it is causal, and can be run step by step.

    The shifted inputs stand side by side, so that all taps are one matrix product.
    """

    inputs: int
    outputs: int
    kernel: int
    dilation: int = 1
    ahead: int = 0
    weight_norm: bool = False
    """W = g V / |V|, with a length g for each output (Salimans & Kingma 2016)."""
    dtype: str = "float32"
    variance: float = 1.0
    """Of an output at first, if the inputs have a variance of 1."""

    def setup(self):
        self.direction = self.param(
            "kernel",
            nn.initializers.variance_scaling(self.variance, "fan_in", "normal"),
            (self.kernel * self.inputs, self.outputs),
        )
        if self.weight_norm:
            self.gain = self.param("gain", lambda key: jnp.linalg.norm(self.direction, axis=0))
        self.bias = self.param("bias", nn.initializers.zeros, (self.outputs,))
        # Outputs stay whole: on a mesh of all three axes, XLA (jaxlib 0.10.2 and 0.12.0.1) computes the right loss,
        # and wrong gradients, for a convolution whose output channels are split.
        declare_axes(self, "kernel", ("inputs", None))
        for name in ("gain", "bias") if self.weight_norm else ("bias",):
            declare_axes(self, name, (None,))

    @property
    def reach(self) -> int:
        """How far back an output of a causal one sees: as many inputs the buffer of a step holds."""
        return (self.kernel - 1) * self.dilation

    def mix(self, taps: list[jax.Array]) -> jax.Array:
        """The outputs from the inputs they see, by j."""
        weights = self.direction
        if self.weight_norm:
            weights = weights * (self.gain / jnp.linalg.norm(weights, axis=0))
        return product("btf,fg->btg", jnp.concatenate(taps, axis=-1), weights, self.dtype) + self.bias

    def __call__(self, x: Float[Array, "B T F"], segments: Int[Array, "B T"] | None = None) -> Float[Array, "B T G"]:
        """All positions; nothing is seen of another segment."""
        taps = []
        for j in range(self.kernel):
            distance = j * self.dilation - self.ahead
            tap = shift(x, distance)
            if segments is not None:
                tap = jnp.where((shift(segments, distance) == segments)[..., None], tap, 0.0)
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


Run = Callable[[Convolution, jax.Array], jax.Array]


def shift(x: jax.Array, distance: int) -> jax.Array:
    """[B T ...] moved `distance` positions to the right, or to the left if it is negative; zeros come in."""
    length, other_axes = x.shape[1], [(0, 0)] * (x.ndim - 2)
    wide = jnp.pad(x, ((0, 0), (max(distance, 0), max(-distance, 0)), *other_axes))
    return wide[:, max(-distance, 0) :][:, :length]


def run_over_all(
    mask: Bool[Array, "B T"],
    segments: Int[Array, "B T"] | None = None,
    buffers: list[Float[Array, "B R F"]] | None = None,
) -> Run:
    """A `run` over all positions, where a pad is as if it were not there. Each convolution that has run adds to
    `buffers` its own after the last position.
    """

    def run(convolution: Convolution, x: jax.Array) -> jax.Array:
        x = jnp.where(mask[..., None], x, 0.0)
        if buffers is not None:
            buffers.append(convolution.start(x))
        return convolution(x, segments)

    return run


def dilations(layers: int, cycle: int) -> list[int]:
    """1, 2, 4, ... for each of `layers` layers; after `cycle` of them it begins anew."""
    return [2 ** (i % cycle) for i in range(layers)]


def max_moves(layer_dilations: Sequence[int], kernel: int, distance: int) -> int | None:
    """Of all distances up to this one: the most causal convolutions, with these dilations, each used once, that it
    takes to carry something over it, if they are well chosen. None: over some of them it cannot be carried.
    """
    fewest = np.where(np.arange(distance + 1) == 0, 0.0, np.inf)
    for dilation in layer_dilations:
        taken = fewest.copy()
        for jump in range(dilation, min((kernel - 1) * dilation, distance) + 1, dilation):
            taken[jump:] = np.minimum(taken[jump:], fewest[:-jump] + 1)
        fewest = taken
    return int(fewest.max()) if np.isfinite(fewest.max()) else None


def run_one_step(buffers: list[jax.Array], t: Int[Array, ""]) -> tuple[Run, list[jax.Array]]:
    """A `run` over position t of K hypotheses, with buffers [B K R F] of the past; and the buffers after it."""
    before, after = iter(buffers), []

    def run(convolution: Convolution, x: jax.Array) -> jax.Array:
        y, buffer = convolution.step(x, next(before), t)
        after.append(buffer)
        return y

    return run, after


class TCNBlock(nn.Module):
    """Two dilated convolutions, weight-normalized, each with ReLU and dropout, and a shortcut (Bai et al. 2018, where
    dropout takes whole channels; here it takes single entries).
    """

    inputs: int
    dim: int
    kernel: int
    dilation: int
    dropout: float
    dtype: str = "float32"

    def setup(self):
        settings = (self.dim, self.kernel, self.dilation, 0, True, self.dtype)
        self.first = Convolution(self.inputs, *settings)
        self.second = Convolution(self.dim, *settings)
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
        self.convolution = Convolution(self.dim, 2 * self.dim, self.kernel, self.dilation, dtype=self.dtype)
        self.out = Dense("btd,de->bte", (self.dim, 2 * self.dim), bias=True, dtype=self.dtype)
        self.drop = Dropout(self.dropout)

    def __call__(
        self, x: Float[Array, "B T D"], run: Run, *, train: bool = False
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """What the next block reads, and what skips to the end."""
        filtered, gate = jnp.split(run(self.convolution, self.drop(x, train=train)), 2, axis=-1)
        residual, skipped = jnp.split(self.out(jnp.tanh(filtered) * jax.nn.sigmoid(gate)), 2, axis=-1)
        return x + residual, skipped


class GatedBlock(nn.Module):
    """A convolution with a gated linear unit, a sigmoid(b) (Gehring et al. 2017, section 3.2)."""

    dim: int
    kernel: int
    dilation: int
    ahead: int
    dropout: float
    dtype: str = "float32"

    def setup(self):
        # The gate, a half at first, leaves a quarter of it; dropout has made the inputs larger (section 3.5).
        variance = 4.0 * (1 - self.dropout)
        self.convolution = Convolution(
            self.dim, 2 * self.dim, self.kernel, self.dilation, self.ahead, True, self.dtype, variance
        )
        self.drop = Dropout(self.dropout)

    def __call__(self, x: Float[Array, "B T D"], run: Run, *, train: bool = False) -> Float[Array, "B T D"]:
        values, gates = jnp.split(run(self.convolution, self.drop(x, train=train)), 2, axis=-1)
        return values * jax.nn.sigmoid(gates)
