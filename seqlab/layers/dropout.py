"""Dropout of elements, which draws one random byte per element, and of whole rows."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqlab.system.errors import SeqlabError


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` and scales up the rest; the identity unless `train` is set.

    One 32-bit random word serves four elements, since on CPU drawing the bits takes several times as long as the rest
    of dropout. The rate is therefore rounded to a multiple of 1/256. The scale follows the rounded rate, so that the
    expectation is exact.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        threshold = round(self.rate * 256)
        if not 0 <= threshold < 256:
            raise SeqlabError(f"dropout rates must be between 0 and 0.998, not {self.rate}")
        if not train or threshold == 0:
            return x
        width = x.shape[-1]
        words = jax.random.bits(self.make_rng("dropout"), (*x.shape[:-1], -(-width // 4)), jnp.uint32)
        draws = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*x.shape[:-1], -1)[..., :width]
        scale = jnp.asarray(256 / (256 - threshold), x.dtype)
        return jnp.where(draws >= threshold, x * scale, jnp.zeros_like(x))


def drop_rows(key: jax.Array, x: jax.Array, rate: float | jax.Array) -> jax.Array:
    """Zeroes rows [B ...] with probability `rate` and scales up the rest, so that the expectation is that of `x`."""
    dropped = jax.random.bernoulli(key, rate, (x.shape[0], *[1] * (x.ndim - 1)))
    return jnp.where(dropped, 0.0, x / (1.0 - rate))
