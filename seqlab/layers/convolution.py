"""Dilated convolutions and blocks of them. Causal convolutions run on all positions at once or one step at a time.

A block receives a function `run(convolution, x)`, which applies a convolution either to all positions, or to the next
position with a buffer of past inputs.
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
    """Computes y[t] = b + the sum over j < kernel of W[j] x[t + ahead - j dilation], where x is zero before its start
    and after its end. If `ahead` is 0, the convolution is causal and can run step by step.

    The shifted inputs are concatenated, so that all taps are one matrix product.
    """

    inputs: int
    outputs: int
    kernel: int
    dilation: int = 1
    ahead: int = 0
    weight_norm: bool = False
    """Weight normalization: W = g V / |V|, with a norm g for each output (Salimans & Kingma 2016)."""
    dtype: str = "float32"
    variance: float = 1.0
    """Variance of an output at initialization, if the inputs have a variance of 1."""

    def setup(self):
        self.direction = self.param(
            "kernel",
            nn.initializers.variance_scaling(self.variance, "fan_in", "normal"),
            (self.kernel * self.inputs, self.outputs),
        )
        if self.weight_norm:
            self.gain = self.param("gain", lambda key: jnp.linalg.norm(self.direction, axis=0))
        self.bias = self.param("bias", nn.initializers.zeros, (self.outputs,))
        # Outputs are not split: on a mesh with all three axes, XLA (jaxlib 0.10.2 and 0.12.0.1) computes the correct
        # loss but wrong gradients for a convolution whose output channels are split.
        declare_axes(self, "kernel", ("inputs", None))
        for name in ("gain", "bias") if self.weight_norm else ("bias",):
            declare_axes(self, name, (None,))

    @property
    def reach(self) -> int:
        """How many past inputs an output of a causal convolution depends on; the buffer of a step stores as many."""
        return (self.kernel - 1) * self.dilation

    def mix(self, taps: list[jax.Array]) -> jax.Array:
        """Returns the outputs, given the input of each tap j."""
        weights = self.direction
        if self.weight_norm:
            weights = weights * (self.gain / jnp.linalg.norm(weights, axis=0))
        return product("btf,fg->btg", jnp.concatenate(taps, axis=-1), weights, self.dtype) + self.bias

    def __call__(self, x: Float[Array, "B T F"], segments: Int[Array, "B T"] | None = None) -> Float[Array, "B T G"]:
        """Returns the outputs of all positions; inputs from other segments count as zero."""
        taps = []
        for j in range(self.kernel):
            distance = j * self.dilation - self.ahead
            tap = shift(x, distance)
            if segments is not None:
                tap = jnp.where((shift(segments, distance) == segments)[..., None], tap, 0.0)
            taps.append(tap)
        return self.mix(taps)

    def start(self, x: Float[Array, "B P F"]) -> Float[Array, "B R F"]:
        """Returns the ring buffer after the inputs `x`. Slot p mod `reach` contains the input of position p."""
        past, size = x.shape[1], self.reach
        buffer = jnp.zeros((x.shape[0], size, x.shape[2]))
        last = range(max(past - size, 0), past)
        return buffer.at[:, jnp.array([p % size for p in last], int)].set(x[:, last.start :]) if size else buffer

    def step(
        self, x: Float[Array, "B K F"], buffer: Float[Array, "B K R F"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K G"], Float[Array, "B K R F"]]:
        """Returns the output at position t for K hypotheses, and the buffer with the input in place of the oldest."""
        taps = [x]
        for j in range(1, self.kernel):
            slot = (t - j * self.dilation) % self.reach
            taps.append(jax.lax.dynamic_index_in_dim(buffer, slot, axis=2, keepdims=False))
        if self.reach:
            buffer = jax.lax.dynamic_update_index_in_dim(buffer, x, t % self.reach, axis=2)
        return self.mix(taps), buffer


Run = Callable[[Convolution, jax.Array], jax.Array]


def shift(x: jax.Array, distance: int) -> jax.Array:
    """Shifts [B T ...] by `distance` positions to the right, or to the left if negative, and fills with zeros."""
    length, other_axes = x.shape[1], [(0, 0)] * (x.ndim - 2)
    wide = jnp.pad(x, ((0, 0), (max(distance, 0), max(-distance, 0)), *other_axes))
    return wide[:, max(-distance, 0) :][:, :length]


def run_over_all(
    mask: Bool[Array, "B T"],
    segments: Int[Array, "B T"] | None = None,
    buffers: list[Float[Array, "B R F"]] | None = None,
) -> Run:
    """Returns a `run` over all positions that treats pads as zeros. Each convolution appends its buffer after the
    last position to `buffers`.
    """

    def run(convolution: Convolution, x: jax.Array) -> jax.Array:
        x = jnp.where(mask[..., None], x, 0.0)
        if buffers is not None:
            buffers.append(convolution.start(x))
        return convolution(x, segments)

    return run


def dilations(layers: int, cycle: int) -> list[int]:
    """Returns the dilations 1, 2, 4, ... of `layers` layers, starting over after every `cycle` layers."""
    return [2 ** (i % cycle) for i in range(layers)]


def max_moves(layer_dilations: Sequence[int], kernel: int, distance: int) -> int | None:
    """Returns the minimum number of causal convolutions that carry information over a distance, maximized over all
    distances up to `distance`. The convolutions have the given dilations, and each is used at most once. Returns None
    if some distance cannot be covered.
    """
    fewest = np.where(np.arange(distance + 1) == 0, 0.0, np.inf)
    for dilation in layer_dilations:
        taken = fewest.copy()
        for jump in range(dilation, min((kernel - 1) * dilation, distance) + 1, dilation):
            taken[jump:] = np.minimum(taken[jump:], fewest[:-jump] + 1)
        fewest = taken
    return int(fewest.max()) if np.isfinite(fewest.max()) else None


def run_one_step(buffers: list[jax.Array], t: Int[Array, ""]) -> tuple[Run, list[jax.Array]]:
    """Returns a `run` over position t of K hypotheses, given buffers [B K R F] of past inputs, and the list that
    receives the new buffers.
    """
    before, after = iter(buffers), []

    def run(convolution: Convolution, x: jax.Array) -> jax.Array:
        y, buffer = convolution.step(x, next(before), t)
        after.append(buffer)
        return y

    return run, after


class TCNBlock(nn.Module):
    """Two weight-normalized dilated convolutions, each with ReLU and dropout, and a shortcut (Bai et al. 2018, who
    drop whole channels; this block drops single elements).
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
    """A gated dilated convolution with a residual connection to the next block and a skip connection to the end of
    the stack (van den Oord et al. 2016, sections 2.3 and 2.4).
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
        """Returns the input of the next block and the output of the skip connection."""
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
        # The initial gate of 1/2 reduces the variance to a quarter; dropout scales the inputs up (section 3.5).
        variance = 4.0 * (1 - self.dropout)
        self.convolution = Convolution(
            self.dim, 2 * self.dim, self.kernel, self.dilation, self.ahead, True, self.dtype, variance
        )
        self.drop = Dropout(self.dropout)

    def __call__(self, x: Float[Array, "B T D"], run: Run, *, train: bool = False) -> Float[Array, "B T D"]:
        values, gates = jnp.split(run(self.convolution, self.drop(x, train=train)), 2, axis=-1)
        return values * jax.nn.sigmoid(gates)
