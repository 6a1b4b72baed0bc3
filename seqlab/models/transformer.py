"""Encoder-decoder Transformer (Vaswani et al. 2017)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.attention import to_cache_layout
from seqlab.layers.embed import Positions, TiedEmbedding, check_tie, read_source
from seqlab.layers.transformer import Stack, grow, reorder
from seqlab.readers.words import Words
from seqlab.types import Generator, Inputs, Tokens

ZERO_GRADIENTS = ("['key']['bias']",)  # adds a constant to all scores of a query, which softmax cancels


class Transformer(nn.Module, Generator):
    """Sequence-to-sequence Transformer. Leave the vocabulary sizes at 0: they are set from the tokenizer."""

    reader: nn.Module = Words()
    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    encoder_layers: int = 6
    """Number of encoder layers."""
    decoder_layers: int = 6
    """Number of decoder layers."""
    dim: int = 512
    """Width of the model."""
    heads: int = 8
    """Number of attention heads."""
    hidden: int = 2048
    """Number of hidden units of the feed-forward layer."""
    dropout: float = 0.1
    """Dropout rate."""
    inner_dropout: float | None = None
    """Dropout rate of the attention weights and of the hidden units of the feed-forward layer.
    None: same as `dropout`."""
    norm: str = "pre"
    """Place of layer normalization: "pre", before each residual branch, or "post", after each residual sum."""
    activation: str = "relu"
    """Activation function of the feed-forward layer: relu, gelu or swish."""
    biases: bool = False
    """Add biases to the projections of attention and to the logits. Vaswani et al. (2017) have none."""
    positions: str = "sinusoidal"
    """Type of position embeddings: "sinusoidal" or "learned"."""
    max_length: int = 1024
    """Maximum number of positions, if they are learned."""
    tie: str = "all"
    """Shared embedding tables: "all" (source, target and output), "target" (target and output) or "none".
    "all" needs a joint vocabulary."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32.
    "bfloat16" is fast on hardware with bfloat16 units: recent GPUs, TPUs, and CPUs with AMX."""
    remat: bool = False
    """Recompute the activations of the layers in the backward pass instead of storing them.
    The CPU compiler stores them anyway, unless `scan` is set."""
    scan: bool = False
    """Compile the layers as one loop, so that compile time does not grow with the number of layers."""
    stochastic_depth: float = 0.0
    """Probability that a residual branch of the last layer is dropped in a row (Huang et al. 2016).
    It grows linearly with depth from the first layer."""
    adapter: int = 0
    """Number of hidden units of adapters, which are added to each residual branch (Houlsby et al. 2019); 0: none."""

    @property
    def shares_table(self) -> bool:
        return self.tie == "all"

    def setup(self):
        check_tie(self.tie, self.reader, self.vocabulary)
        self.words = TiedEmbedding(self.vocabulary, self.dim, self.tie != "none", self.dtype, bias=self.biases)
        self.source_positions = Positions(self.positions, self.dim, self.max_length)
        self.target_positions = Positions(self.positions, self.dim, self.max_length)
        inner = self.dropout if self.inner_dropout is None else self.inner_dropout
        sizes = (self.dim, self.heads, self.hidden, self.dropout, inner, self.norm, self.activation, self.biases)
        stack_settings: Any = {
            "dtype": self.dtype,
            "remat": self.remat,
            "scan": self.scan,
            "stochastic_depth": self.stochastic_depth,
            "adapter": self.adapter,
        }
        self.encoder = Stack(self.encoder_layers, *sizes, **stack_settings)
        self.decoder = Stack(self.decoder_layers, *sizes, cross=True, **stack_settings)

    def encode(self, inputs: Inputs, *, train: bool = False) -> tuple[Float[Array, "B P D"], Bool[Array, "B P"]]:
        """Returns the memory and the mask of its real positions."""
        x, mask = read_source(self.reader, inputs, self.dim, self.words.embed if self.shares_table else None)
        x += self.source_positions.of_rows(mask)
        return self.encoder.encode(x, mask, train=train), mask

    @nn.nowrap
    def embed_prefix(self, prefix: Tokens) -> Float[Array, "B T D"]:
        return self.words.embed(prefix.ids) + self.target_positions.of_rows(prefix.mask)

    def features(
        self, inputs: Inputs, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        memory, mask = self.encode(inputs, train=train)
        return self.decoder.decode(self.embed_prefix(prefix), prefix.mask, memory, mask, train=train), carry

    def attention_weights(self, inputs: Inputs, prefix: Tokens) -> Float[Array, "L B H T P"]:
        """Returns the cross-attention weights of a forced pass, by decoder layer and head."""
        memory, mask = self.encode(inputs)
        memory = self.decoder.encode_memory(memory)
        return jnp.stack(self.decoder.forced(self.embed_prefix(prefix), prefix.mask, memory, mask)[1])

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.words.project(features)

    def start(self, inputs: Inputs, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        self.target_positions.check_length(capacity)
        memory, mask = self.encode(inputs)
        memory = self.decoder.encode_memory(memory)
        past, caches = Tokens(prompt.ids[:, :-1], prompt.mask[:, :-1]), None
        if past.ids.shape[1]:
            caches, _ = self.decoder.forced(self.embed_prefix(past), past.mask, memory, mask)
        state = self.decoder.start(caches, prompt.mask, capacity, hypotheses)
        return {"layers": [to_cache_layout(*keys_values) for keys_values in memory], "mask": mask}, state

    def step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        return self.attentive_step(memory, state, token, t)[:2]

    def attentive_step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any, Float[Array, "B K P"]]:
        """Like `step`, but also returns the last layer's attention over the source, averaged over heads."""
        x = self.words.embed(token) + self.target_positions((t - state["offset"])[:, None])
        x, state, weights = self.decoder.step(x, state, t, memory["layers"], memory["mask"])
        return self.project(x), state, weights.mean(1)

    @property
    def longest(self) -> int | None:
        """Maximum number of positions in a source, or in a prompt and its continuation; None: unlimited."""
        return self.max_length if self.positions == "learned" else None

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"source": 1, "target": 1}

    @nn.nowrap
    def grow(self, state: Any, more: int) -> Any:
        return grow(state, more)

    @nn.nowrap
    def reorder(self, state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state, parents)


TINY = Transformer(
    Words(vocabulary=9), vocabulary=7, encoder_layers=2, decoder_layers=2, dim=8, heads=2, hidden=12, tie="target"
)
VARIANTS = (
    TINY.clone(norm="post", positions="learned", max_length=16, tie="none"),
    TINY.clone(norm="post", activation="swish", biases=True, adapter=3),
)
