"""Convolutional encoder-decoder with attention in every decoder layer (Gehring et al. 2017)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.layers.attention import masked_softmax
from seqlab.layers.convolution import GatedBlock, Run, dilations, max_moves, run_one_step, run_over_all
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import Positions, TiedEmbedding, check_tie, read_source
from seqlab.layers.hypotheses import reorder, repeat
from seqlab.readers.words import Words
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Generator, Inputs, Tokens

SMALL = 0.1  # initial deviation of embeddings and positions, so that attention is nearly uniform (section 3.5)
HALF = 0.5**0.5  # scales a sum of two terms back to the variance of one (section 3.4)


class ConvSeq2Seq(nn.Module, Generator):
    """Gated convolutions, which are not causal in the encoder. In a config, leave the
    vocabulary sizes at 0: they are set from the tokenizer.

    Unlike in the paper, the gradient from the decoder's layers to the encoder is not divided by the number of layers.
    """

    reader: nn.Module = Words()
    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    encoder_layers: int = 4
    """Number of encoder layers."""
    decoder_layers: int = 3
    """Number of decoder layers."""
    dim: int = 256
    """Width of the model."""
    kernel: int = 3
    """Kernel size; must be odd, so that the encoder's convolutions are symmetric."""
    cycle: int = 1
    """Dilations are 1, 2, 4, ... and start over after this many layers. 1 means no dilation;
    5 gives the dilations of ByteNet, which has no attention (Kalchbrenner et al. 2016)."""
    dropout: float = 0.2
    """Dropout rate."""
    positions: str = "learned"
    """Type of position embeddings: "sinusoidal" or "learned"."""
    max_length: int = 1024
    """Maximum number of positions, if they are learned."""
    tie: str = "all"
    """Shared embedding tables: "all" (source, target and output), "target" (target and output) or "none".
    "all" needs a joint vocabulary."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def shares_table(self) -> bool:
        return self.tie == "all"

    def setup(self):
        check_tie(self.tie, self.reader, self.vocabulary)
        if self.kernel % 2 == 0:
            raise SeqlabError(f"kernel must be odd, not {self.kernel}")
        check_minimum("kernel", self.kernel, 3)
        check_minimum("cycle", self.cycle, 1)
        check_minimum("encoder_layers", self.encoder_layers, 1)
        check_minimum("decoder_layers", self.decoder_layers, 1)
        dim, dtype = self.dim, self.dtype
        self.words = TiedEmbedding(self.vocabulary, dim, self.tie != "none", dtype)
        self.source_positions = Positions(self.positions, dim, self.max_length, 1.0)
        self.target_positions = Positions(self.positions, dim, self.max_length, 1.0)
        ahead, settings = self.kernel // 2, (self.dropout, dtype)
        above, below = dilations(self.decoder_layers, self.cycle), dilations(self.encoder_layers, self.cycle)
        self.encoder = [GatedBlock(dim, self.kernel, d, ahead * d, *settings) for d in below]
        self.decoder = [GatedBlock(dim, self.kernel, d, 0, *settings) for d in above]
        self.query = [Dense("btd,de->bte", (dim, dim), bias=True, dtype=dtype) for _ in above]
        self.mix = [Dense("btd,de->bte", (dim, dim), bias=True, dtype=dtype) for _ in above]
        self.drop = Dropout(self.dropout)

    @property
    def widest_kernel(self) -> int:
        return self.kernel

    @property
    def receptive_field(self) -> int:
        """Number of target tokens that a logit depends on, including the last one."""
        return 1 + (self.kernel - 1) * sum(dilations(self.decoder_layers, self.cycle))

    @property
    def longest(self) -> int | None:
        """Maximum number of positions in a source, or in a prompt and its continuation; None: unlimited."""
        return self.max_length if self.positions == "learned" else None

    def encode(self, inputs: Inputs, *, train: bool = False) -> dict[str, jax.Array]:
        """Returns "keys", the outputs of the last layer, "values", which also include the embeddings, and "mask"."""
        words, mask = read_source(self.reader, inputs, self.dim, self.words.embed if self.shares_table else None)
        embedded = self.drop(SMALL * (words + self.source_positions.of_rows(mask)), train=train)
        x, run = embedded, run_over_all(mask)
        for block in self.encoder:
            x = HALF * (x + block(x, run, train=train))
        return {"keys": x, "values": HALF * (x + embedded), "mask": mask}

    def stack(
        self, embedded: Float[Array, "B T D"], memory: Any, run: Run, *, train: bool = False
    ) -> tuple[Float[Array, "B T D"], list[jax.Array]]:
        """Runs the decoder. Returns features and the attention weights [B T S] of each layer."""
        embedded = self.drop(SMALL * embedded, train=train)
        x, looked = embedded, []
        for block, query, mix in zip(self.decoder, self.query, self.mix, strict=True):
            y = block(x, run, train=train)
            scores = jnp.einsum("btd,bsd->bts", HALF * (query(y) + embedded), memory["keys"])
            weights = masked_softmax(scores, memory["mask"][:, None])
            # A mean of n positions has 1/n of the variance, so it is scaled up by sqrt(n) (section 3.4).
            count = jnp.maximum(memory["mask"].sum(-1), 1)[:, None, None]
            context = jnp.einsum("bts,bsd->btd", weights, memory["values"]) * jnp.sqrt(count)
            x = HALF * (x + HALF * (y + mix(context)))
            looked.append(weights)
        return self.drop(x, train=train), looked

    def decode(
        self, memory: Any, prefix: Tokens, buffers: list[jax.Array] | None = None, *, train: bool = False
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Returns features and attention weights, and appends the buffers of the convolutions to `buffers`."""
        x = self.words.embed(prefix.ids) + self.target_positions.of_rows(prefix.mask)
        return self.stack(x, memory, run_over_all(prefix.mask, buffers=buffers), train=train)

    def features(
        self, inputs: Inputs, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        return self.decode(self.encode(inputs, train=train), prefix, train=train)[0], carry

    def attention_weights(self, inputs: Inputs, prefix: Tokens) -> Float[Array, "L B H T P"]:
        """Returns the attention weights of a forced pass by decoder layer, with one head."""
        return jnp.stack(self.decode(self.encode(inputs), prefix)[1])[:, :, None]

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.words.project(features)

    def start(self, inputs: Inputs, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        self.target_positions.check_length(capacity)
        memory = self.encode(inputs)
        buffers: list[jax.Array] = []
        self.decode(memory, Tokens(prompt.ids[:, :-1], prompt.mask[:, :-1]), buffers)
        offset = prompt.mask.shape[1] - prompt.mask.sum(-1)
        return {**memory, "offset": offset.astype(jnp.int32)}, repeat(buffers, hypotheses)

    def step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        return self.attentive_step(memory, state, token, t)[:2]

    def attentive_step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any, Float[Array, "B K P"]]:
        """Like `step`, but also returns the last layer's attention over the source."""
        run, state = run_one_step(state, t)
        x = self.words.embed(token) + self.target_positions((t - memory["offset"])[:, None])
        features, looked = self.stack(x, memory, run)
        return self.project(features), state, looked[-1]

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        above = dilations(self.decoder_layers, self.cycle)
        return {"source": 1, "target": max_moves(above, self.kernel, length - 1)}

    @nn.nowrap
    def reorder(self, state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state, parents)


TINY = ConvSeq2Seq(Words(vocabulary=9), vocabulary=7, encoder_layers=2, decoder_layers=2, dim=8, tie="target")
VARIANTS = (TINY.clone(cycle=2, positions="sinusoidal", tie="none"),)
