"""Token embeddings and positions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.axes import declare_axes
from seqlab.layers.dense import Dense, product
from seqlab.system.errors import SeqlabError


def positions_of(mask: Bool[Array, "B T"], segments: Int[Array, "B T"] | None = None) -> Int[Array, "B T"]:
    """Returns the position of each real token in its row, wherever pads occur: [0 0 1 1 1] -> [0 0 0 1 2].

    With segments, positions restart at 0 in each segment: [1 1 2 2 2] -> [0 1 0 1 2].
    """
    counted = jnp.maximum(jnp.cumsum(mask, axis=-1) - 1, 0)
    if segments is None:
        return counted
    first = jnp.diff(segments, axis=-1, prepend=-1) != 0
    return counted - jax.lax.cummax(jnp.where(first, counted, 0), axis=1)


def sinusoidal(positions: Int[Array, "..."], dim: int) -> Float[Array, "... D"]:
    """Returns sinusoidal position embeddings with frequencies 10,000 ** (-2 i / D) (Vaswani et al. 2017, section
    3.5): all sines, then all cosines, which alternate in the paper.
    """
    frequencies = 10_000.0 ** (jnp.arange(dim // 2) * (-2 / dim))
    angles = positions[..., None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def check_tie(tie: str, reader: Any, vocabulary: int) -> None:
    """Raises `SeqlabError` unless `tie` is valid for this reader and vocabulary: "all" (source, target and output
    share one table, which requires a joint vocabulary), "target" (target and output share one) or "none".

    The decoder owns the shared table. With "all", the model passes its `embed` to the reader of the source, which
    then creates no table.
    """
    source_vocabulary = getattr(reader, "vocabulary", None)
    if tie not in ("all", "target", "none"):
        raise SeqlabError(f"tie must be 'all', 'target' or 'none', not {tie!r}")
    if tie == "all" and source_vocabulary is None:
        raise SeqlabError(f"tie='all' needs a source of tokens, but {type(reader).__name__} does not read tokens")
    if tie == "all" and getattr(reader, "dim", 0):
        raise SeqlabError("tie='all' gives the source the width of the target: leave model.reader.dim at 0")
    if tie == "all" and source_vocabulary != vocabulary:
        raise SeqlabError(
            f"tie='all' needs one joint vocabulary, not two of {source_vocabulary} and {vocabulary} entries: "
            "set text.joint, or tie='target'"
        )


def read_source(
    reader: Any, inputs: Any, dim: int, embed: Callable[[jax.Array], jax.Array] | None = None
) -> tuple[Float[Array, "B P D"], Bool[Array, "B P"]]:
    """Returns the vectors and the mask that a reader returns for a source. Raises `SeqlabError` if their width is not
    `dim`.
    """
    x, mask = reader.read(inputs, dim, embed=embed)
    if x.shape[-1] != dim:
        raise SeqlabError(
            f"{type(reader).__name__} returns vectors of width {x.shape[-1]}, but the model has width {dim}"
        )
    return x, mask


class Embedding(nn.Module):
    """Token embeddings without positions."""

    entries: int
    dim: int

    @nn.compact
    def __call__(self, ids: Int[Array, "..."]) -> Float[Array, "... D"]:
        declare_axes(self, "table", ("vocabulary", "width"))
        return self.param("table", nn.initializers.normal(1.0), (self.entries, self.dim))[ids]


class TiedEmbedding(nn.Module):
    """Token embeddings, and the projection from features to logits over the same tokens."""

    entries: int
    dim: int
    tie: bool
    """Tie the projection to the embedding table."""
    dtype: str = "float32"
    bias: bool = True
    """Add a bias to the logits."""
    prompts: int = 0
    """Number of soft prompts (Lester et al. 2021): learned vectors with the ids `entries`, `entries` + 1, ...; they
    have no logits."""

    def setup(self):
        if self.prompts:
            self.prompt_table = self.param("prompts", nn.initializers.normal(0.5), (self.prompts, self.dim))
            declare_axes(self, "prompts", (None, "width"))
        # A standard deviation of 1/sqrt(D) gives unit variance after scaling, and moderate logits when tied.
        self.table = self.param("table", nn.initializers.normal(self.dim**-0.5), (self.entries, self.dim))
        declare_axes(self, "table", ("vocabulary", "width"))
        if self.bias:
            self.offset = self.param("bias", nn.initializers.zeros, (self.entries,))
            declare_axes(self, "bias", ("vocabulary",))
        if not self.tie:
            axes = ("inputs", "vocabulary")
            self.output = Dense("bd,dv->bv", (self.dim, self.entries), dtype=self.dtype, axes=axes)

    def embed(self, ids: Int[Array, "..."]) -> Float[Array, "... D"]:
        words = self.table[jnp.minimum(ids, self.entries - 1) if self.prompts else ids] * self.dim**0.5
        if not self.prompts:
            return words
        prompts = self.prompt_table[jnp.clip(ids - self.entries, 0, self.prompts - 1)]
        return jnp.where((ids >= self.entries)[..., None], prompts, words)

    def project(self, features: Float[Array, "... D"]) -> Float[Array, "... V"]:
        flat = features.reshape(-1, self.dim)
        logits = product("bd,vd->bv", flat, self.table, self.dtype) if self.tie else self.output(flat)
        if self.bias:
            logits += self.offset
        return logits.reshape(*features.shape[:-1], self.entries)


class Positions(nn.Module):
    """Position embeddings, which are added to the token embeddings."""

    kind: str
    """Type of position embeddings: "sinusoidal" or "learned"."""
    dim: int
    longest: int
    """Maximum number of positions, if they are learned."""
    deviation: float = 0.02
    """Initial standard deviation of learned positions."""

    def setup(self):
        if self.kind not in ("sinusoidal", "learned"):
            raise SeqlabError(f"positions must be 'sinusoidal' or 'learned', not {self.kind!r}")
        if self.kind == "learned":
            self.table = self.param("table", nn.initializers.normal(self.deviation), (self.longest, self.dim))
            declare_axes(self, "table", (None, "width"))
        elif self.dim % 2:
            raise SeqlabError(f"the width must be even for sine and cosine halves, not {self.dim}")

    def check_length(self, length: int) -> None:
        """Raises `SeqlabError` if there are fewer than `length` learned positions, since a gather beyond the last one
        would silently repeat it.
        """
        if self.kind == "learned" and length > self.longest:
            raise SeqlabError(
                f"{length} positions are needed, but only {self.longest} are learned: raise model.max_length"
            )

    def of_rows(self, mask: Bool[Array, "B T"], segments: Int[Array, "B T"] | None = None) -> Float[Array, "B T D"]:
        """Returns the embedding of each token's position in its row or segment. Raises `SeqlabError` for rows that
        are too long.
        """
        length = mask.shape[1]
        self.check_length(length)
        table = self.table if self.kind == "learned" else sinusoidal(jnp.arange(length), self.dim)
        return table[positions_of(mask, segments)]

    def __call__(self, positions: Int[Array, "..."]) -> Float[Array, "... D"]:
        return self.table[positions] if self.kind == "learned" else sinusoidal(positions, self.dim)
