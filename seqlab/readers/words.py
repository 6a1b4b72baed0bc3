"""A reader that embeds tokens."""

from collections.abc import Callable

import jax
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from seqlab.layers.embed import Embedding
from seqlab.layers.nesting import blank_tokens
from seqlab.types import Reader, Tokens


class Words(nn.Module, Reader):
    """Token embeddings without positions. Leave the vocabulary size at 0: it is set from the tokenizer."""

    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    dim: int = 0
    """Width of the embeddings; 0: the width of the model."""
    column: str = "source"

    @nn.compact
    def read(
        self, inputs: Tokens, width: int, *, embed: Callable[[jax.Array], jax.Array] | None = None
    ) -> tuple[Float[Array, "B P D"], Bool[Array, "B P"]]:
        if embed is not None:
            return embed(inputs.ids), inputs.mask
        return Embedding(self.vocabulary, self.dim or width, name="words")(inputs.ids), inputs.mask

    @nn.nowrap
    def blank(self, rows: int, length: int) -> Tokens:
        return blank_tokens(rows, length)


TINY = Words(vocabulary=9, dim=8)
