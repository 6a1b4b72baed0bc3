"""The base of modules that contain an encoder: heads, and encoders on top of another encoder."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from seqlab.system.errors import SeqlabError
from seqlab.types import Encoded, Encoder, Inputs


class EncoderHead(nn.Module):
    """A module with the length limit, receptive field, kernel and paths of its encoder."""

    encoder: nn.Module

    @property
    def longest(self) -> int | None:
        return self.encoder.longest

    @property
    def receptive_field(self) -> int | None:
        return self.encoder.receptive_field

    @property
    def widest_kernel(self) -> int:
        return self.encoder.widest_kernel

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return self.encoder.paths(length)


class StackedEncoder(EncoderHead, Encoder):
    """An encoder on top of another one, each of whose outputs depends on the whole text."""

    @property
    def causal(self) -> bool:
        return False

    @property
    def receptive_field(self) -> int | None:
        return None


def encode_inputs(encoder: Any, inputs: Inputs, *, train: bool) -> Encoded:
    """Returns the encoded inputs. Raises `SeqlabError` if the encoder does not return an `Encoded` of the right
    shapes.
    """
    encoded, name = encoder.encode(inputs, train=train), f"{type(encoder).__name__}.encode"
    if not isinstance(encoded, Encoded):
        raise SeqlabError(f"{name} must return an Encoded, not {type(encoded).__name__}")
    shapes = [jnp.shape(array) for array in (encoded.values, encoded.mask, encoded.summary)]
    values, mask, summary = shapes
    if len(values) != 3 or mask != values[:2] or len(summary) != 2 or summary[0] != values[0]:
        raise SeqlabError(
            f"{name} must return values [B P D], mask [B P] and summary [B D]; the shapes are "
            f"{', '.join(map(str, shapes))}"
        )
    return encoded
