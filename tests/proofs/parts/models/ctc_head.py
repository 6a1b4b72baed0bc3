"""Predicts a symbol or a blank at each position of an encoder. The number of symbols is 0 in a config and is set from
the data.
"""

from flax import linen as nn

from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.layers.dense import Dense
from seqlab.layers.head import EncoderHead
from seqlab.readers.words import Words
from seqlab.types import Tagger


class CTCHead(EncoderHead, Tagger):
    encoder: nn.Module = RecurrentEncoder()
    vocabulary: int = 0

    @property
    def classes(self) -> int:
        return self.vocabulary + 1

    @nn.compact
    def tag(self, inputs, *, train):
        encoded = self.encoder.encode(inputs, train=train)
        output = Dense("bpd,dc->bpc", (encoded.values.shape[-1], self.classes), bias=True, name="output")
        return output(encoded.values), encoded.mask


TINY = CTCHead(RecurrentEncoder(Words(vocabulary=9), dim=8, both_ways=True), vocabulary=5)
