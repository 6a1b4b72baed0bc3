"""Masked multi-head scaled dot-product attention, for all positions at once or one step at a time."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.axes import declare_axes
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.system.errors import SeqlabError

MASKED = -1e9  # finite, so that a fully masked row gives zeros instead of NaN

CacheLayout = tuple[jax.Array, jax.Array]  # keys [B H d N] and values [B H N d]


def causal_mask(mask: Bool[Array, "B T"], segments: Int[Array, "B T"] | None = None) -> Bool[Array, "B T T"]:
    """Returns the mask of the positions that each position attends to: the real ones up to itself, in its segment.

    mask  1 1 1 0        1 0 0 0         segments  1 1 2 0        1 0 0 0
                         1 1 0 0                                  1 1 0 0
                         1 1 1 0                                  0 0 1 0
                         1 1 1 0                                  0 0 0 0
    """
    length = mask.shape[-1]
    seen = jnp.tril(jnp.ones((length, length), bool)) & mask[:, None, :]
    return seen if segments is None else seen & (segments[:, :, None] == segments[:, None, :])


def masked_softmax(scores: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Returns the softmax over the last axis, in float32 or wider. Masked entries are exactly zero, even in a fully
    masked row.
    """
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    weights = jax.nn.softmax(jnp.where(mask, scores, MASKED), axis=-1)
    return weights * mask


def slot_mask(ancestors: Int[Array, "B K T"], offset: Int[Array, "B"], t: Int[Array, ""]) -> Bool[Array, "B K N"]:
    """Returns which cache slots each hypothesis attends to. There are N = T x K slots; slot (t, j) has index t K + j.

    Hypothesis j wrote slot (t', j) at position t'. Hypothesis k attends to it if j is the ancestor of k at t', t' is
    not in the future, and t' is not a pad to the left of the prompt.
    """
    batch, hypotheses, capacity = ancestors.shape
    is_ancestor = ancestors[..., None] == jnp.arange(hypotheses)  # [B K T K]
    positions = jnp.arange(capacity)
    seen = (positions <= t) & (positions >= offset[:, None])  # [B T]
    return (is_ancestor & seen[:, None, :, None]).reshape(batch, hypotheses, capacity * hypotheses)


class Alignment(nn.Module):
    """The scores of attention with one head, whose values are the memory itself, for a query q and a memory position
    m:

    additive   v . tanh(W q + b + U m)  (Bahdanau et al. 2015, appendix A.1.2, without b)
    dot        q . m                    (Luong et al. 2015, equation 8)
    general    q . U m                  (Luong et al. 2015, equation 8)
    scaled     q . m / sqrt(D)          (Vaswani et al. 2017, equation 1)
    """

    score: str
    query_dim: int
    memory_dim: int
    dtype: str = "float32"

    def setup(self):
        if self.score not in ("additive", "dot", "general", "scaled"):
            raise SeqlabError(f"attention must be 'additive', 'dot', 'general' or 'scaled', not {self.score!r}")
        if self.score in ("dot", "scaled") and self.query_dim != self.memory_dim:
            raise SeqlabError(
                f"{self.score} attention needs queries and memory of the same width, not {self.query_dim} and "
                f"{self.memory_dim}: use general"
            )
        if self.score in ("additive", "general"):
            self.key = Dense("bse,ed->bsd", (self.memory_dim, self.query_dim), dtype=self.dtype)
        if self.score == "additive":
            self.query = Dense(
                "bkd,de->bke", (self.query_dim, self.query_dim), bias=True, dtype=self.dtype, axes=(None, None)
            )
            self.vector = self.param("vector", nn.initializers.normal(self.query_dim**-0.5), (self.query_dim,))
            declare_axes(self, "vector", (None,))

    def keys(self, memory: Float[Array, "B S E"]) -> Float[Array, "B S D"]:
        """Returns the keys, which are computed once per memory."""
        return self.key(memory) if self.score in ("additive", "general") else memory

    def scores(self, query: Float[Array, "B K D"], keys: Float[Array, "B S D"]) -> Float[Array, "B K S"]:
        """Returns the score of each query at each position of the memory."""
        if self.score == "additive":
            return additive(self.query(query), keys, self.vector)
        scores = jnp.einsum("bkd,bsd->bks", query, keys)
        return scores * self.query_dim**-0.5 if self.score == "scaled" else scores


@jax.checkpoint
def additive(query: jax.Array, keys: jax.Array, vector: jax.Array) -> jax.Array:
    """Returns v . tanh(q + k). The backward pass recomputes the sums [B K S D], so no step stores them."""
    return jnp.tanh(query[:, :, None] + keys[:, None]) @ vector


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2). With `biases` the projections have biases, which the
    paper does not use.

    Keys and values are projected separately, so that they can be cached: call `keys_values` once per memory, then
    `attend` with any mask. `dtype` is the type of the projections. Scores and sums over the memory are float32: they
    are small, and XLA on CPU does not support batched bfloat16 products of some shapes.
    """

    dim: int
    heads: int
    dropout: float = 0.0
    biases: bool = False
    dtype: str = "float32"

    def setup(self):
        if self.heads < 1 or self.dim % self.heads:
            raise SeqlabError(f"the width {self.dim} must be divisible by the number of heads, {self.heads}")
        shape = (self.dim, self.heads, self.dim // self.heads)
        by_head = ("inputs", "heads", None)
        self.query = Dense("btd,dhe->bthe", shape, self.biases, self.dtype, axes=by_head)
        self.key = Dense("btd,dhe->bthe", shape, self.biases, self.dtype, axes=by_head)
        self.value = Dense("btd,dhe->bthe", shape, self.biases, self.dtype, axes=by_head)
        out_axes = ("heads", None, "outputs")
        self.out = Dense("bthe,hed->btd", (*shape[1:], self.dim), self.biases, self.dtype, axes=out_axes)
        self.drop = Dropout(self.dropout)

    def keys_values(self, memory: Float[Array, "B S D"]) -> tuple[jax.Array, jax.Array]:
        """Returns keys and values, each [B S H D/H]."""
        return self.key(memory), self.value(memory)

    def attend(
        self,
        x: Float[Array, "B T D"],
        keys: Float[Array, "B S H d"],
        values: Float[Array, "B S H d"],
        mask: Bool[Array, "B #T S"],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T S"]]:
        """Returns the attended values and the attention weights."""
        query = self.query(x) * (self.dim // self.heads) ** -0.5
        weights = masked_softmax(jnp.einsum("bthd,bshd->bhts", query, keys), mask[:, None])
        dropped = self.drop(weights, train=train)
        return self.out(jnp.einsum("bhts,bshd->bthd", dropped, values)), weights

    def step(
        self, x: Float[Array, "B K D"], cache: CacheLayout, mask: Bool[Array, "B K N"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K D"], CacheLayout]:
        """Writes the keys and values of this position into the cache, and attends to the slots in `mask`."""
        slot = t * x.shape[1]
        keys, values = to_cache_layout(self.key(x), self.value(x))
        keys = jax.lax.dynamic_update_slice_in_dim(cache[0], keys, slot, axis=3)
        values = jax.lax.dynamic_update_slice_in_dim(cache[1], values, slot, axis=2)
        return self.attend_cached(x, (keys, values), mask)[0], (keys, values)

    def attend_cached(
        self, x: Float[Array, "B K D"], memory: CacheLayout, mask: Bool[Array, "B #K N"]
    ) -> tuple[Float[Array, "B K D"], Float[Array, "B H K N"]]:
        """Like `attend`, without dropout, for few positions and a memory in cache layout."""
        query = self.query(x) * (self.dim // self.heads) ** -0.5
        mixed, weights = few_queries(query.transpose(0, 2, 1, 3), *memory, mask[:, None])
        return self.out(mixed.transpose(0, 2, 1, 3)), weights


def to_cache_layout(keys: Float[Array, "B N H d"], values: Float[Array, "B N H d"]) -> CacheLayout:
    """Returns keys [B H d N] and values [B H N d], the layout that single steps read fastest."""
    return keys.transpose(0, 2, 3, 1), values.transpose(0, 2, 1, 3)


def few_queries(
    query: Float[Array, "B H K d"],
    keys: Float[Array, "B H d N"],
    values: Float[Array, "B H N d"],
    mask: Bool[Array, "B 1 #K N"],
) -> tuple[Float[Array, "B H K d"], Float[Array, "B H K N"]]:
    """Computes attention for a few queries. Returns the attended values and the weights, both zero for a fully masked
    query.

    To minimize passes over the scores, the largest array, the mask is added to them, and the weights are normalized
    after the product with the values.
    """
    scores = jnp.einsum("bhkd,bhdn->bhkn", query, keys) + jnp.where(mask, 0.0, MASKED)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    total = jnp.where(mask.any(-1, keepdims=True), weights.sum(-1, keepdims=True), jnp.inf)
    return jnp.einsum("bhkn,bhnd->bhkd", weights, values) / total, weights / total
