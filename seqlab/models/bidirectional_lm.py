"""The head of ELMo's pre-training: a language model in each direction (Peters et al. 2018)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from seqlab.encoders.bilm import BilmEncoder
from seqlab.layers.axes import declare_axes
from seqlab.layers.head import EncoderHead, encode_inputs
from seqlab.readers.words import Words
from seqlab.types import Inputs, Tagger


class BidirectionalLM(EncoderHead, Tagger):
    """Predicts the next token from the first half of the values, and the previous token from the second half, with
    the embedding table of the encoder. The outputs at 2 P positions are P next tokens and then P previous tokens.
    """

    encoder: nn.Module = BilmEncoder()

    @property
    def classes(self) -> int:
        return self.encoder.reader.vocabulary

    @nn.compact
    def tag(self, inputs: Inputs, *, train: bool) -> tuple[Float[Array, "B Q V"], Bool[Array, "B Q"]]:
        encoded = encode_inputs(self.encoder, inputs, train=train)
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        declare_axes(self, "bias", ("vocabulary",))
        halves = jnp.concatenate(jnp.split(encoded.values, 2, axis=-1), axis=1)
        return self.encoder.project(halves) + bias, jnp.concatenate([encoded.mask, encoded.mask], axis=1)


TINY = BidirectionalLM(BilmEncoder(Words(vocabulary=9), dim=8))
