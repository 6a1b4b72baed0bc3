"""Reads images of one size as maps of vectors: a convolution, and a learned vector for each position of the map."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from seqlab.types import Pixels, Reader


class ConvMap(nn.Module, Reader):
    features: int = 0
    column: str = "source"

    @nn.compact
    def read(self, inputs, width, *, embed=None):
        x = inputs.values.astype(jnp.float32) / 255
        x = nn.relu(nn.Conv(width, (3, 3), strides=2, name="convolution")(x))
        values = x.reshape(x.shape[0], -1, width)
        values += self.param("places", nn.initializers.normal(0.1), values.shape[1:])
        return values, jnp.ones(values.shape[:2], bool)

    @nn.nowrap
    def blank(self, rows, length):
        return Pixels(np.zeros((rows, 8, 8, self.features), np.uint8))


TINY = ConvMap(features=1)
