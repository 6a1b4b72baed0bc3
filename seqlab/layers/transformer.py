"""Transformer encoder and decoder stacks (Vaswani et al. 2017)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.attention import Attention, causal_mask, slot_mask, to_cache_layout
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout, drop_rows
from seqlab.layers.norm import LayerNorm
from seqlab.system.checks import check_fraction, check_minimum
from seqlab.system.errors import SeqlabError

ACTIVATIONS = {"relu": nn.relu, "gelu": functools.partial(nn.gelu, approximate=False), "swish": nn.swish}
ADAPTER_DEVIATION = 0.01  # of the initial kernels of adapters; the paper truncates their normal distribution


class FeedForward(nn.Module):
    """Two dense layers with an activation function between them, applied to each position."""

    dim: int
    hidden: int
    dropout: float
    activation: str = "relu"
    dtype: str = "float32"
    deviation: float | None = None
    """Standard deviation of normally initialized kernels; None: Glorot uniform."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], *, train: bool = False) -> Float[Array, "B T D"]:
        if self.activation not in ACTIVATIONS:
            raise SeqlabError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")
        inner, outer, options = ("inputs", "hidden"), ("hidden", "outputs"), (True, self.dtype, self.deviation)
        x = Dense("btd,dh->bth", (self.dim, self.hidden), *options, axes=inner, name="inner")(x)
        x = Dropout(self.dropout)(ACTIVATIONS[self.activation](x), train=train)
        return Dense("bth,hd->btd", (self.hidden, self.dim), *options, axes=outer, name="outer")(x)


class Adapter(nn.Module):
    """x + f(x), where f is a feed-forward layer of `width` hidden units (Houlsby et al. 2019). If `width` is 0, the
    output is the input, and there are no parameters.

    Kernels are initialized close to zero, so a layer with adapters first computes nearly the values of one without.
    """

    dim: int
    width: int
    activation: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        if not self.width:
            return x
        sizes = (self.dim, self.width)
        return x + FeedForward(*sizes, 0.0, self.activation, self.dtype, ADAPTER_DEVIATION, name="bottleneck")(x)


class Layer(nn.Module):
    """One layer: self-attention, cross-attention if `cross` is set, and feed-forward, each in a residual branch.

    `norm` is "pre", x + f(LN(x)), or "post", LN(x + f(x)) as in the paper. `dropout` applies to the branches,
    `inner_dropout` to attention weights and to the hidden layer of the feed-forward layer, where the paper uses none.
    `adapter` is the number of hidden units of an adapter at the end of each branch, after its dropout; 0: none.
    """

    dim: int
    heads: int
    hidden: int
    dropout: float
    inner_dropout: float
    norm: str = "pre"
    activation: str = "relu"
    biases: bool = False
    cross: bool = False
    dtype: str = "float32"
    adapter: int = 0

    def setup(self):
        if self.norm not in ("pre", "post"):
            raise SeqlabError(f"norm must be 'pre' or 'post', not {self.norm!r}")
        self.self_attention = Attention(self.dim, self.heads, self.inner_dropout, self.biases, self.dtype)
        self.self_norm = LayerNorm()
        adapter = functools.partial(Adapter, self.dim, self.adapter, self.activation, self.dtype)
        self.self_adapter = adapter()
        if self.cross:
            self.cross_attention = Attention(self.dim, self.heads, self.inner_dropout, self.biases, self.dtype)
            self.cross_norm = LayerNorm()
            self.cross_adapter = adapter()
        self.feed_forward = FeedForward(self.dim, self.hidden, self.inner_dropout, self.activation, self.dtype)
        self.feed_forward_norm = LayerNorm()
        self.feed_forward_adapter = adapter()
        self.drop = Dropout(self.dropout)

    def before(self, norm: nn.Module, x: jax.Array) -> jax.Array:
        return norm(x) if self.norm == "pre" else x

    def after(
        self,
        norm: nn.Module,
        adapter: nn.Module,
        x: jax.Array,
        branch: jax.Array,
        train: bool,
        drop_rate: float | jax.Array | None = None,
    ) -> jax.Array:
        branch = adapter(self.drop(branch, train=train))
        if train and drop_rate is not None:
            branch = drop_rows(self.make_rng("dropout"), branch, drop_rate)
        x = x + branch
        return x if self.norm == "pre" else norm(x)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B #T T"],
        memory: Any = None,
        memory_mask: Bool[Array, "B 1 S"] | None = None,
        *,
        train: bool = False,
        drop_rate: float | Float[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], Any, Any]:
        """Returns the output, the keys and values of self-attention, and the weights [B H T S] over the memory, or
        None. In training, each residual branch is dropped in each row with the probability `drop_rate`.
        """
        y = self.before(self.self_norm, x)
        keys_values = self.self_attention.keys_values(y)
        y, _ = self.self_attention.attend(y, *keys_values, mask, train=train)
        x = self.after(self.self_norm, self.self_adapter, x, y, train, drop_rate)
        x, weights = self.cross_block(x, memory, memory_mask, train=train, drop_rate=drop_rate)
        y = self.feed_forward(self.before(self.feed_forward_norm, x), train=train)
        x = self.after(self.feed_forward_norm, self.feed_forward_adapter, x, y, train, drop_rate)
        return x, keys_values, weights

    def step(
        self,
        x: Float[Array, "B K D"],
        cache: Any,
        mask: Bool[Array, "B K N"],
        memory: Any,
        memory_mask: Any,
        t: Int[Array, ""],
    ) -> tuple[Float[Array, "B K D"], Any, Any]:
        """Advances K hypotheses by one position. Returns the output, the cache and the weights [B H K S] over the
        memory, or None.
        """
        y, cache = self.self_attention.step(self.before(self.self_norm, x), cache, mask, t)
        x = self.after(self.self_norm, self.self_adapter, x, y, False)
        weights = None
        if self.cross:
            y, weights = self.cross_attention.attend_cached(self.before(self.cross_norm, x), memory, memory_mask)
            x = self.after(self.cross_norm, self.cross_adapter, x, y, False)
        y = self.feed_forward(self.before(self.feed_forward_norm, x))
        return self.after(self.feed_forward_norm, self.feed_forward_adapter, x, y, False), cache, weights

    def cross_block(
        self, x: jax.Array, memory: Any, memory_mask: Any, *, train: bool, drop_rate: float | jax.Array | None
    ) -> tuple[jax.Array, Any]:
        if not self.cross:
            return x, None
        keys, values = memory
        y, weights = self.cross_attention.attend(
            self.before(self.cross_norm, x), keys, values, memory_mask, train=train
        )
        return self.after(self.cross_norm, self.cross_adapter, x, y, train, drop_rate), weights

    def encode_memory(self, memory: Float[Array, "B S D"]) -> tuple[jax.Array, jax.Array]:
        """Returns the cross-attention keys and values of an encoder output, computed once per sentence."""
        return self.cross_attention.keys_values(memory)


class Stack(nn.Module):
    """A stack of `layers` layers, followed by a final normalization if `norm` is "pre"."""

    layers: int
    dim: int
    heads: int
    hidden: int
    dropout: float
    inner_dropout: float
    norm: str = "pre"
    activation: str = "relu"
    biases: bool = False
    cross: bool = False
    dtype: str = "float32"
    remat: bool = False
    """Recompute the activations of each layer in the backward pass instead of storing them (Chen et al. 2016)."""
    scan: bool = False
    """Compile the layers as one loop, so that compile time does not grow with the number of layers."""
    stochastic_depth: float = 0.0
    """Probability that a residual branch of the last layer is dropped in a row, in training (Huang et al. 2016). It
    grows linearly from the first layer, equation 4 of the paper; the branches that remain are scaled up."""
    adapter: int = 0

    def setup(self):
        check_minimum("layers", self.layers, 1)
        check_fraction("stochastic_depth", self.stochastic_depth)
        check_minimum("adapter", self.adapter, 0)
        self.stack = [
            Layer(
                self.dim,
                self.heads,
                self.hidden,
                self.dropout,
                self.inner_dropout,
                self.norm,
                self.activation,
                self.biases,
                self.cross,
                self.dtype,
                self.adapter,
            )
            for _ in range(self.layers)
        ]
        if self.norm == "pre":
            self.last_norm = LayerNorm()
        self.drop = Dropout(self.dropout)

    def finish(self, x: jax.Array) -> jax.Array:
        return self.last_norm(x) if self.norm == "pre" else x

    def through(
        self, x: jax.Array, mask: jax.Array, memory: Any = None, memory_mask: Any = None, *, train: bool
    ) -> jax.Array:
        """Returns the output of all layers. Each layer computes its own keys and values from a memory [B S D]."""

        def run(layer: Layer, x: jax.Array, drop_rate: jax.Array | None) -> jax.Array:
            keys_values = layer.encode_memory(memory) if layer.cross else None
            return layer(x, mask, keys_values, memory_mask, train=train, drop_rate=drop_rate)[0]

        if self.scan and not self.is_initializing():
            return self.run_scanned(run, x)
        run = nn.remat(run) if self.remat and train else run
        for layer, drop_rate in zip(self.stack, self.drop_rates(), strict=True):
            x = run(layer, x, drop_rate)
        return x

    def drop_rates(self) -> Any:
        """Returns the probability of each layer that a branch is dropped, [L], or None for each layer."""
        if not self.stochastic_depth:
            return [None] * self.layers
        return self.stochastic_depth * jnp.arange(1, self.layers + 1) / self.layers

    def run_scanned(self, run: Callable[[Layer, jax.Array, Any], jax.Array], x: jax.Array) -> jax.Array:
        """Runs the layers as a loop over their stacked parameters. Outside of this loop each layer has its own
        parameters.
        """
        layer, _ = self.stack[0].unbind()
        params = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *[layer_module.variables["params"] for layer_module in self.stack]
        )
        keys = jax.random.split(self.make_rng("dropout"), self.layers) if self.has_rng("dropout") else None

        def body(x: jax.Array, layer_inputs: Any) -> tuple[jax.Array, None]:
            params, key, drop_rate = layer_inputs
            rngs = None if key is None else {"dropout": key}
            after: Any = layer.apply({"params": params}, x, drop_rate, rngs=rngs, method=run)
            return after, None

        body = jax.checkpoint(body, prevent_cse=False) if self.remat else body
        drop_rates = self.drop_rates() if self.stochastic_depth else None
        return jax.lax.scan(body, x, (params, keys, drop_rates))[0]

    def encode(
        self, x: Float[Array, "B S D"], mask: Bool[Array, "B S"], *, train: bool = False
    ) -> Float[Array, "B S D"]:
        """Encodes a sequence in which each position attends to all real positions."""
        return self.finish(self.through(self.drop(x, train=train), mask[:, None, :], train=train))

    def decode(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        memory: Float[Array, "B S D"] | None = None,
        memory_mask: Bool[Array, "B S"] | None = None,
        *,
        segments: Int[Array, "B T"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B T D"]:
        """Decodes a sequence in which each position attends to itself, to earlier positions and to the real positions
        of a memory.
        """
        x, seen = self.drop(x, train=train), None if memory_mask is None else memory_mask[:, None, :]
        return self.finish(self.through(x, causal_mask(mask, segments), memory, seen, train=train))

    def forced(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        memory: list[Any] | None = None,
        memory_mask: Bool[Array, "B S"] | None = None,
    ) -> tuple[list[Any], list[Any]]:
        """Runs `decode`, but returns the keys and values and the weights over the memory of each layer. `memory` is
        the result of `encode_memory`.
        """
        causal, seen = causal_mask(mask), None if memory_mask is None else memory_mask[:, None, :]
        caches, weights = [], []
        for i, layer in enumerate(self.stack):
            x, keys_values, attention = layer(x, causal, memory and memory[i], seen)
            caches.append(keys_values)
            weights.append(attention)
        return caches, weights

    def encode_memory(self, memory: Float[Array, "B S D"]) -> list[Any]:
        return [layer.encode_memory(memory) for layer in self.stack]

    def start(
        self, caches: list[Any] | None, mask: Bool[Array, "B P"], capacity: int, hypotheses: int
    ) -> dict[str, Any]:
        """Returns the state before the first step: a cache with room for `capacity` positions of `hypotheses`
        hypotheses that contains the keys and values `caches` of the first P - 1 tokens of a right-aligned prompt.
        `caches` is None if P is 1.

        The keys of the prompt are in the slots of hypothesis 0. The table of ancestors is initially all zeros, so
        every hypothesis reads these slots.
        """
        batch, prompt = mask.shape
        slots, width = capacity * hypotheses, self.dim // self.heads
        keys = jnp.zeros((batch, self.heads, width, slots), jnp.float32)
        values = jnp.zeros((batch, self.heads, slots, width), jnp.float32)
        if caches is None:
            cache = [(keys, values) for _ in self.stack]
        else:
            past = jnp.arange(prompt - 1) * hypotheses
            written = [to_cache_layout(*keys_values) for keys_values in caches]
            cache = [(keys.at[..., past].set(k), values.at[:, :, past].set(v)) for k, v in written]
        return {
            "cache": cache,
            "ancestors": jnp.zeros((batch, hypotheses, capacity), jnp.int32),
            "offset": prompt - mask.sum(-1).astype(jnp.int32),
        }

    def step(
        self,
        x: Float[Array, "B K D"],
        state: dict[str, Any],
        t: Int[Array, ""],
        memory: Any = None,
        memory_mask: Bool[Array, "B S"] | None = None,
    ) -> tuple[Float[Array, "B K D"], dict[str, Any], Any]:
        """Advances K hypotheses by one position, `t`. Past keys and values do not move in the cache. Also returns the
        last layer's weights over the memory [B H K S], or None.
        """
        batch, hypotheses, _ = x.shape
        slots_of_t = jnp.broadcast_to(jnp.arange(hypotheses, dtype=jnp.int32)[None, :, None], (batch, hypotheses, 1))
        ancestors = jax.lax.dynamic_update_slice_in_dim(state["ancestors"], slots_of_t, t, axis=2)
        mask = slot_mask(ancestors, state["offset"], t)
        seen = None if memory_mask is None else memory_mask[:, None, :]
        caches, weights = [], None
        for i, layer in enumerate(self.stack):
            x, cache, weights = layer.step(x, state["cache"][i], mask, memory and memory[i], seen, t)
            caches.append(cache)
        return self.finish(x), {**state, "cache": caches, "ancestors": ancestors}, weights


def grow(state: dict[str, Any], more: int) -> dict[str, Any]:
    """Returns the state with room for `more` additional positions."""
    slots = more * state["ancestors"].shape[1]
    unpadded, padded = (0, 0), (0, slots)
    cache = [
        (
            jnp.pad(keys, (unpadded, unpadded, unpadded, padded)),
            jnp.pad(values, (unpadded, unpadded, padded, unpadded)),
        )
        for keys, values in state["cache"]
    ]
    return {**state, "cache": cache, "ancestors": jnp.pad(state["ancestors"], ((0, 0), (0, 0), (0, more)))}


def reorder(state: dict[str, Any], parents: Int[Array, "B K"]) -> dict[str, Any]:
    """Reorders the table of ancestors; the cache does not move."""
    ancestors = jnp.take_along_axis(state["ancestors"], parents[..., None], axis=1)
    return {**state, "ancestors": ancestors}
