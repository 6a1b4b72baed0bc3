"""A bigram language model, estimated by counting, with additive smoothing (Lidstone 1920)."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from seqlab.types import Counted, Generator


class CountedBigram(nn.Module, Generator, Counted):
    vocabulary: int = 0
    added: float = 1.0
    """Initial value of each count."""

    def setup(self):
        self.table = self.param("table", nn.initializers.zeros, (self.vocabulary, self.vocabulary))

    @property
    def receptive_field(self):
        return 1

    @nn.nowrap
    def count(self, batches):
        counts = np.full((self.vocabulary, self.vocabulary), self.added)
        for batch in batches:
            real = batch.weights > 0
            np.add.at(counts, (batch.prefix.ids[real], batch.targets[real]), 1.0)
        return {"params": {"table": np.float32(np.log(counts / counts.sum(axis=1, keepdims=True)))}}

    def features(self, inputs, prefix, carry=None, *, train):
        return self.table[prefix.ids], carry

    def project(self, features):
        return jnp.asarray(features, jnp.float32)

    def start(self, inputs, prompt, capacity, hypotheses):
        return {}, {}

    def step(self, memory, state, token, t):
        return self.table[token], state

    @nn.nowrap
    def reorder(self, state, parents):
        return state


TINY = CountedBigram(vocabulary=7)
