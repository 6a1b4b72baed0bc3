"""Decoder-only Transformer language model (Radford et al. 2018), with the layers of Vaswani et al. (2017)."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.layers.embed import Positions, TiedEmbedding
from seqlab.layers.transformer import Stack, grow, reorder
from seqlab.types import Generator, Tokens


class TransformerLM(nn.Module, Generator):
    """Transformer language model. In a config, leave the vocabulary size at 0: it is set from the tokenizer."""

    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    layers: int = 6
    """Number of layers."""
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
    positions: str = "sinusoidal"
    """Type of position embeddings: "sinusoidal" or "learned"."""
    max_length: int = 1024
    """Maximum number of positions, if they are learned."""
    tie: bool = True
    """Tie the output projection to the embedding table."""
    prompts: int = 0
    """Number of soft prompts, which are learned vectors for ids from `vocabulary` upwards.
    The model reads these ids but cannot generate them."""
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

    def setup(self):
        self.words = TiedEmbedding(self.vocabulary, self.dim, self.tie, self.dtype, False, self.prompts)
        self.target_positions = Positions(self.positions, self.dim, self.max_length, name="where")  # as in older runs
        inner = self.dropout if self.inner_dropout is None else self.inner_dropout
        sizes = (self.dim, self.heads, self.hidden, self.dropout, inner, self.norm)
        settings: Any = {
            "dtype": self.dtype,
            "remat": self.remat,
            "scan": self.scan,
            "stochastic_depth": self.stochastic_depth,
            "adapter": self.adapter,
        }
        self.decoder = Stack(self.layers, *sizes, **settings)

    @nn.nowrap
    def embed(self, prefix: Tokens) -> Float[Array, "B T D"]:
        return self.words.embed(prefix.ids) + self.target_positions.of_rows(prefix.mask, prefix.segments)

    def features(
        self, inputs: None, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        x = self.embed(prefix)
        return self.decoder.decode(x, prefix.mask, segments=prefix.segments, train=train), carry

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.words.project(features)

    def start(self, inputs: None, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        self.target_positions.check_length(capacity)
        past, caches = Tokens(prompt.ids[:, :-1], prompt.mask[:, :-1]), None
        if past.ids.shape[1]:
            caches, _ = self.decoder.forced(self.embed(past), past.mask)
        return {}, self.decoder.start(caches, prompt.mask, capacity, hypotheses)

    def step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        x = self.words.embed(token) + self.target_positions((t - state["offset"])[:, None])
        x, state, _ = self.decoder.step(x, state, t)
        return self.project(x), state

    @property
    def longest(self) -> int | None:
        """Maximum number of positions in a source, or in a prompt and its continuation; None: unlimited."""
        return self.max_length if self.positions == "learned" else None

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return {"target": 1}

    @nn.nowrap
    def grow(self, state: Any, more: int) -> Any:
        return grow(state, more)

    @nn.nowrap
    def reorder(self, state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state, parents)


TINY = TransformerLM(vocabulary=7, layers=2, dim=8, heads=2, hidden=12)
VARIANTS = (TINY.clone(norm="post", positions="learned", max_length=24, tie=False, adapter=3),)
