"""Language models of dilated causal convolutions: TCN (Bai et al. 2018) or WaveNet (van den Oord et al. 2016)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.layers.convolution import Run, TCNBlock, WaveNetBlock, dilations, max_moves, run_one_step, run_over_all
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.embed import TiedEmbedding
from seqlab.layers.hypotheses import reorder, repeat
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Generator, Tokens


class TCNLM(nn.Module, Generator):
    """Language model with a context of `receptive_field` tokens. In a config, leave the vocabulary size at 0: it is
    set from the tokenizer.

    Unlike in WaveNet, an embedding replaces the first convolution.
    """

    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    block: str = "tcn"
    """Type of block: tcn, or wavenet, which has gates and skip connections."""
    layers: int = 4
    """Number of layers."""
    dim: int = 450
    """Width of the model."""
    kernel: int = 3
    """Number of positions that a convolution spans."""
    cycle: int = 10
    """Dilations are 1, 2, 4, ... and start over after this many layers."""
    dropout: float = 0.45
    """Dropout rate."""
    tie: bool = True
    """Tie the output projection to the embedding table."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""
    remat: bool = False
    """Recompute the activations of the layers in the backward pass instead of storing them.
    The CPU compiler stores them anyway."""

    def setup(self):
        if self.block not in ("tcn", "wavenet"):
            raise SeqlabError(f"block must be 'tcn' or 'wavenet', not {self.block!r}")
        check_minimum("layers", self.layers, 1)
        check_minimum("kernel", self.kernel, 2)
        check_minimum("cycle", self.cycle, 1)
        self.words = TiedEmbedding(self.vocabulary, self.dim, self.tie, self.dtype)
        block_settings = [
            (self.kernel, dilation, self.dropout, self.dtype) for dilation in dilations(self.layers, self.cycle)
        ]
        if self.block == "tcn":
            self.blocks: list[Any] = [TCNBlock(self.dim, self.dim, *sizes) for sizes in block_settings]
        else:
            self.blocks = [WaveNetBlock(self.dim, *sizes) for sizes in block_settings]
            self.end = Dense("btd,de->bte", (self.dim, self.dim), bias=True, dtype=self.dtype)
        self.drop = Dropout(self.dropout)

    @property
    def widest_kernel(self) -> int:
        return self.kernel

    @property
    def receptive_field(self) -> int:
        """Number of tokens that a logit depends on, including the last one."""
        convolutions = 2 if self.block == "tcn" else 1
        return 1 + convolutions * (self.kernel - 1) * sum(dilations(self.layers, self.cycle))

    def stack(self, x: Float[Array, "B T D"], run: Run, *, train: bool = False) -> Float[Array, "B T D"]:
        def through(block: Any, x: jax.Array) -> Any:
            return block(x, run, train=train)

        through = nn.remat(through) if self.remat and train else through
        if self.block == "tcn":
            x = self.drop(x, train=train)
            for block in self.blocks:
                x = through(block, x)
            return x
        total = jnp.zeros_like(x)
        for block in self.blocks:
            x, skipped = through(block, x)
            total += skipped
        return nn.relu(self.end(nn.relu(total)))

    def features(
        self, inputs: None, prefix: Tokens, carry: Any = None, *, train: bool
    ) -> tuple[Float[Array, "B T D"], Any]:
        run = run_over_all(prefix.mask, prefix.segments)
        return self.stack(self.words.embed(prefix.ids), run, train=train), carry

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        return self.words.project(features)

    def start(self, inputs: None, prompt: Tokens, capacity: int, hypotheses: int) -> tuple[Any, Any]:
        buffers: list[jax.Array] = []
        self.stack(self.words.embed(prompt.ids[:, :-1]), run_over_all(prompt.mask[:, :-1], buffers=buffers))
        return {}, repeat(buffers, hypotheses)

    def step(
        self, memory: Any, state: Any, token: Int[Array, "B K"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K V"], Any]:
        run, state = run_one_step(state, t)
        return self.project(self.stack(self.words.embed(token), run)), state

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        convolutions = 2 if self.block == "tcn" else 1
        return {"target": max_moves(convolutions * dilations(self.layers, self.cycle), self.kernel, length - 1)}

    @nn.nowrap
    def reorder(self, state: Any, parents: Int[Array, "B K"]) -> Any:
        return reorder(state, parents)


TINY = TCNLM(vocabulary=7, layers=2, dim=12, kernel=2)
VARIANTS = (TINY.clone(block="wavenet", kernel=3, cycle=1, tie=False),)
