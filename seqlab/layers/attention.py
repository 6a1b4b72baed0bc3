"""Masked multi-head scaled dot-product attention, for all positions at once and one step at a time."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.layers.axes import declare_axes
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.system.errors import SeqlabError

MASKED = -1e9  # finite, so that a row with nothing to attend to gives zeros and not NaN

CacheLayout = tuple[jax.Array, jax.Array]  # keys [B H d N] and values [B H N d]


def causal_mask(mask: Bool[Array, "B T"], segments: Int[Array, "B T"] | None = None) -> Bool[Array, "B T T"]:
    """Position t may see the real positions up to t, of its own segment if there are any.

    mask  1 1 1 0        1 0 0 0         segments  1 1 2 0        1 0 0 0
                         1 1 0 0                                  1 1 0 0
                         1 1 1 0                                  0 0 1 0
                         1 1 1 0                                  0 0 0 0
    """
    length = mask.shape[-1]
    seen = jnp.tril(jnp.ones((length, length), bool)) & mask[:, None, :]
    return seen if segments is None else seen & (segments[:, :, None] == segments[:, None, :])


def masked_softmax(scores: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Softmax over the last axis, in float32 or finer; masked entries are exactly zero, an all-masked row too."""
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    weights = jax.nn.softmax(jnp.where(mask, scores, MASKED), axis=-1)
    return weights * mask


def slot_mask(ancestors: Int[Array, "B K T"], offset: Int[Array, "B"], t: Int[Array, ""]) -> Bool[Array, "B K N"]:
    """Which cache slots a hypothesis may see; N = T x K, and slot (t, j) stands at t K + j.

    Slot (t', j) was written by hypothesis j at position t'. Hypothesis k sees it if j is its ancestor
    there, if t' is not in the future, and if t' is not a pad left of the prompt.
    """
    batch, hypotheses, capacity = ancestors.shape
    is_ancestor = ancestors[..., None] == jnp.arange(hypotheses)  # [B K T K]
    positions = jnp.arange(capacity)
    seen = (positions <= t) & (positions >= offset[:, None])  # [B T]
    return (is_ancestor & seen[:, None, :, None]).reshape(batch, hypotheses, capacity * hypotheses)


class Alignment(nn.Module):
    """Attention of one head, the values being the memory itself: how well a query q fits a position m of a memory.

    additive   v . tanh(W q + b + U m)  (Bahdanau et al. 2015, appendix A.1.2, which has no b)
    dot        q . m                    (Luong et al. 2015, equation 8)
    general    q . U m                  (the same)
    scaled     q . m / sqrt(D)          (Vaswani et al. 2017, equation 1)
    """

    score: str
    query_dim: int
    memory_dim: int
    dtype: str = "float32"

    def setup(self):
        if self.score not in ("additive", "dot", "general", "scaled"):
            raise SeqlabError(
                f"attention must be 'additive', or 'dot', 'general' or 'scaled', Luong's, not {self.score!r}"
            )
        if self.score in ("dot", "scaled") and self.query_dim != self.memory_dim:
            raise SeqlabError(
                f"{self.score} attention needs queries as wide as the memory, not {self.query_dim} and "
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
        """What is computed once a memory."""
        return self.key(memory) if self.score in ("additive", "general") else memory

    def scores(self, query: Float[Array, "B K D"], keys: Float[Array, "B S D"]) -> Float[Array, "B K S"]:
        """How well each query fits each position of the memory."""
        if self.score == "additive":
            return additive(self.query(query), keys, self.vector)
        scores = jnp.einsum("bkd,bsd->bks", query, keys)
        return scores * self.query_dim**-0.5 if self.score == "scaled" else scores


@jax.checkpoint
def additive(query: jax.Array, keys: jax.Array, vector: jax.Array) -> jax.Array:
    """v . tanh(q + k); the sums [B K S D] are made again in the backward pass, and not kept of every step."""
    return jnp.tanh(query[:, :, None] + keys[:, None]) @ vector


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2); its projections have biases or none, as in the paper.

    Projections are apart from attending, so that keys and values can be kept: `keys_values` of a memory
    once, then `attend` with whatever mask. `dtype` is that of the projections; scores and sums over the
    memory are float32, for they are small, and XLA on CPU refuses batched bfloat16 products of some shapes.
    """

    dim: int
    heads: int
    dropout: float = 0.0
    biases: bool = False
    dtype: str = "float32"

    def setup(self):
        if self.dim % self.heads:
            raise SeqlabError(f"{self.heads} heads do not divide a width of {self.dim}")
        shape = (self.dim, self.heads, self.dim // self.heads)
        by_head = ("inputs", "heads", None)
        self.query = Dense("btd,dhe->bthe", shape, self.biases, self.dtype, axes=by_head)
        self.key = Dense("btd,dhe->bthe", shape, self.biases, self.dtype, axes=by_head)
        self.value = Dense("btd,dhe->bthe", shape, self.biases, self.dtype, axes=by_head)
        out_axes = ("heads", None, "outputs")
        self.out = Dense("bthe,hed->btd", (*shape[1:], self.dim), self.biases, self.dtype, axes=out_axes)
        self.drop = Dropout(self.dropout)

    def keys_values(self, memory: Float[Array, "B S D"]) -> tuple[jax.Array, jax.Array]:
        """Keys and values, each [B S H D/H]."""
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
        """The attended values and the weights."""
        query = self.query(x) * (self.dim // self.heads) ** -0.5
        weights = masked_softmax(jnp.einsum("bthd,bshd->bhts", query, keys), mask[:, None])
        dropped = self.drop(weights, train=train)
        return self.out(jnp.einsum("bhts,bshd->bthd", dropped, values)), weights

    def step(
        self, x: Float[Array, "B K D"], cache: CacheLayout, mask: Bool[Array, "B K N"], t: Int[Array, ""]
    ) -> tuple[Float[Array, "B K D"], CacheLayout]:
        """Writes this position's keys and values into the cache, where they stay; attends to the slots in `mask`."""
        slot = t * x.shape[1]
        keys, values = to_cache_layout(self.key(x), self.value(x))
        keys = jax.lax.dynamic_update_slice_in_dim(cache[0], keys, slot, axis=3)
        values = jax.lax.dynamic_update_slice_in_dim(cache[1], values, slot, axis=2)
        return self.attend_cached(x, (keys, values), mask)[0], (keys, values)

    def attend_cached(
        self, x: Float[Array, "B K D"], memory: CacheLayout, mask: Bool[Array, "B #K N"]
    ) -> tuple[Float[Array, "B K D"], Float[Array, "B H K N"]]:
        """Like `attend`, without dropout, for few positions and a memory in the layout of the cache."""
        query = self.query(x) * (self.dim // self.heads) ** -0.5
        mixed, weights = few_queries(query.transpose(0, 2, 1, 3), *memory, mask[:, None])
        return self.out(mixed.transpose(0, 2, 1, 3)), weights


def to_cache_layout(keys: Float[Array, "B N H d"], values: Float[Array, "B N H d"]) -> CacheLayout:
    """Keys [B H d N] and values [B H N d], as single steps read them fastest."""
    return keys.transpose(0, 2, 3, 1), values.transpose(0, 2, 1, 3)


def few_queries(
    query: Float[Array, "B H K d"],
    keys: Float[Array, "B H d N"],
    values: Float[Array, "B H N d"],
    mask: Bool[Array, "B 1 #K N"],
) -> tuple[Float[Array, "B H K d"], Float[Array, "B H K N"]]:
    """Attention of a few queries: what they see, and the weights; both zero where there is nothing to see.

    What is masked is pushed down by a sum, and weights are divided by their total behind the product with the values:
    the fewest passes over the scores, of which there are more than of anything else here.
    """
    scores = jnp.einsum("bhkd,bhdn->bhkn", query, keys) + jnp.where(mask, 0.0, MASKED)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    total = jnp.where(mask.any(-1, keepdims=True), weights.sum(-1, keepdims=True), jnp.inf)
    return jnp.einsum("bhkn,bhnd->bhkd", weights, values) / total, weights / total
