"""Concatenates neighboring frames into one position, so that `stack` 2 halves the number of positions."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from seqlab.layers.dense import Dense
from seqlab.types import Frames, Reader


class FrameStack(nn.Module, Reader):
    features: int = 0
    stack: int = 2
    column: str = "source"

    @nn.compact
    def read(self, inputs, width, *, embed=None):
        x, mask = inputs.values, inputs.mask
        missing = -x.shape[1] % self.stack
        x = jnp.pad(jnp.where(mask[..., None], x, 0.0), ((0, 0), (0, missing), (0, 0)))
        mask = jnp.pad(mask, ((0, 0), (0, missing)))[:, :: self.stack]
        x = x.reshape(x.shape[0], -1, self.stack * self.features)
        return Dense("bpf,fd->bpd", (self.stack * self.features, width), bias=True, name="output")(x), mask

    @nn.nowrap
    def blank(self, rows, length):
        return Frames(np.zeros((rows, length, self.features), np.float32), np.ones((rows, length), bool))


TINY = FrameStack(features=3)
