"""Encoder-decoder Transformer (Vaswani et al. 2017, "Attention is all you need")."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.attention import to_cache_layout
from seqlab.layers.embed import Positions, TiedEmbedding, check_tie, read_source
from seqlab.layers.transformer import Stack, grow, reorder
from seqlab.readers.words import Words
from seqlab.types import Generator, Inputs, Tokens

ZERO_GRADIENTS = ("['key']['bias']",)  # the same is added to all scores of a query: softmax takes it away


class Transformer(nn.Module, Generator):
    """Sequence to sequence. The vocabulary sizes are 0 in a config and come from the tokenizer."""

    reader: nn.Module = Words()
    vocabulary: int = 0
    encoder_layers: int = 6
    decoder_layers: int = 6
    dim: int = 512
    heads: int = 8
    hidden: int = 2048
    """Width of the feed-forward layer."""
    dropout: float = 0.1
    inner_dropout: float | None = None
    """Of attention weights and of the feed-forward's hidden layer. None: as `dropout`."""
    norm: str = "pre"
    """"pre" or "post": where layer normalization stands in a residual branch."""
    activation: str = "relu"
    """Of the feed-forward layer: relu, gelu or swish."""
    biases: bool = False
    """Whether the projections of attention, and the logits, have biases, which they have not in the paper."""
    positions: str = "sinusoidal"
    """"sinusoidal" or "learned"."""
    max_length: int = 1024
    """How many positions there are, if they are learned."""
    tie: str = "all"
    """"all": source, target and output share one table (a joint vocabulary); "target": target and output; "none"."""
    dtype: str = "float32"
    """What the operands of products with parameters are rounded to; all else is float32. "bfloat16" is what matrix
    units take, AMX of recent CPUs too."""
    remat: bool = False
    """Whether the layers' activations are computed again in the backward pass, in place of being kept. The compiler
    for CPU keeps them all the same, unless there is `scan`."""
    scan: bool = False
    """Whether the layers are compiled once, as a loop, however many there are."""

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
        stack_settings: Any = {"dtype": self.dtype, "remat": self.remat, "scan": self.scan}
        self.encoder = Stack(self.encoder_layers, *sizes, **stack_settings)
        self.decoder = Stack(self.decoder_layers, *sizes, cross=True, **stack_settings)

    def encode(self, inputs: Inputs, *, train: bool = False) -> tuple[Float[Array, "B P D"], Bool[Array, "B P"]]:
        """The memory, and which of its positions are real."""
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
        """Cross-attention weights of a forced pass, by decoder layer and head."""
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
        """A step, and the last layer's attention over the source, the mean of its heads."""
        x = self.words.embed(token) + self.target_positions((t - state["offset"])[:, None])
        x, state, weights = self.decoder.step(x, state, t, memory["layers"], memory["mask"])
        return self.project(x), state, weights.mean(1)

    @property
    def longest(self) -> int | None:
        """Most positions of a source, or of a prompt and what follows it; None: no bound."""
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
    TINY.clone(norm="post", activation="swish", biases=True),
)
