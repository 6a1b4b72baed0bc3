"""The heads of BERT's pre-training: masked tokens, and whether one text follows another (Devlin et al. 2019)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from seqlab.encoders.bert import BertEncoder
from seqlab.layers.axes import declare_axes
from seqlab.layers.dense import Dense
from seqlab.layers.head import EncoderHead, encode_inputs
from seqlab.layers.norm import LayerNorm
from seqlab.readers.words import Words
from seqlab.types import Inputs, MaskedPredictor

ZERO_GRADIENTS = ("['key']['bias']", "['follows_hidden']", "['follows']")  # the tags do not depend on the second head


class MaskedLM(EncoderHead, MaskedPredictor):
    """Scores tokens with the embedding table of its encoder, after a dense layer. Another dense layer on the summary
    predicts whether the second text of a row follows the first.
    """

    encoder: nn.Module = BertEncoder()
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def classes(self) -> int:
        return self.encoder.reader.vocabulary

    @nn.compact
    def predict_tokens(
        self, inputs: Inputs, places: Int[Array, "B M"], *, train: bool
    ) -> tuple[Float[Array, "B M V"], Float[Array, "B"]]:
        encoded = encode_inputs(self.encoder, inputs, train=train)
        x, width = jnp.take_along_axis(encoded.values, places[..., None], axis=1), encoded.values.shape[-1]
        x = Dense("bmd,de->bme", (width, width), bias=True, dtype=self.dtype, name="hidden")(x)
        x = LayerNorm(name="norm")(jax.nn.gelu(x, approximate=False))
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        declare_axes(self, "bias", ("vocabulary",))
        summary_width, options = encoded.summary.shape[-1], {"bias": True, "dtype": self.dtype}
        pair_hidden = Dense("bd,de->be", (summary_width, summary_width), **options, name="follows_hidden")
        pair_output = Dense("bd,do->bo", (summary_width, 1), **options, name="follows")
        return self.encoder.project(x) + bias, pair_output(jnp.tanh(pair_hidden(encoded.summary)))[:, 0]

    def tag(self, inputs: Inputs, *, train: bool) -> tuple[Float[Array, "B P V"], Bool[Array, "B P"]]:
        everywhere = jnp.broadcast_to(jnp.arange(inputs.mask.shape[1]), inputs.mask.shape)
        return self.predict_tokens(inputs, everywhere, train=train)[0], inputs.mask


TINY = MaskedLM(
    BertEncoder(Words(vocabulary=9), layers=1, dim=8, heads=2, hidden=12, norm="pre", positions="sinusoidal")
)
