"""The class of a sequence: a dense layer on the summary of an encoder."""

from collections.abc import Callable

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from seqlab.encoders.hierarchical import HierarchicalEncoder
from seqlab.encoders.mean import MeanEncoder
from seqlab.layers.dense import Dense
from seqlab.layers.dropout import Dropout
from seqlab.layers.head import EncoderHead, encode_inputs
from seqlab.readers.words import Words
from seqlab.types import Inputs, MixingClassifier


class ClassifierHead(EncoderHead, MixingClassifier):
    """In a config, leave the number of classes at 0: it is set from the data."""

    encoder: nn.Module = MeanEncoder()
    classes: int = 0
    """Number of classes; 0: set from the labels of the training data."""
    dropout: float = 0.3
    """Dropout rate of the summary."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    def classify(self, inputs: Inputs, *, train: bool) -> Float[Array, "B C"]:
        return self.classify_summaries(inputs, lambda x: x, train=train)

    def classify_mixtures(
        self, inputs: Inputs, partners: Int[Array, "B"], share: Float[Array, ""], *, train: bool
    ) -> Float[Array, "B C"]:
        return self.classify_summaries(inputs, lambda x: share * x + (1 - share) * x[partners], train=train)

    @nn.compact
    def classify_summaries(
        self, inputs: Inputs, change: Callable[[jax.Array], jax.Array], *, train: bool
    ) -> Float[Array, "B C"]:
        x = change(encode_inputs(self.encoder, inputs, train=train).summary)
        x = Dropout(self.dropout)(x, train=train)
        return Dense("bd,dc->bc", (x.shape[-1], self.classes), bias=True, dtype=self.dtype, name="output")(x)


TINY = ClassifierHead(MeanEncoder(Words(vocabulary=9), dim=8, hidden=12), classes=3)
VARIANTS = (TINY.clone(encoder=HierarchicalEncoder(Words(vocabulary=9), dim=8, hidden=6, sentences=4)),)
