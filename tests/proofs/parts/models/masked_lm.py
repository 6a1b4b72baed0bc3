"""Masked language model: a dense layer from the values of an encoder to the vocabulary (Devlin et al. 2019)."""

from flax import linen as nn

from seqlab.encoders.transformer import TransformerEncoder
from seqlab.layers.dense import Dense
from seqlab.layers.head import EncoderHead
from seqlab.readers.words import Words
from seqlab.types import Tagger


class MaskedLM(EncoderHead, Tagger):
    encoder: nn.Module = TransformerEncoder()

    @property
    def classes(self) -> int:
        return self.encoder.reader.vocabulary

    @nn.compact
    def tag(self, inputs, *, train):
        encoded = self.encoder.encode(inputs, train=train)
        output = Dense("bpd,dv->bpv", (encoded.values.shape[-1], self.classes), bias=True, name="output")
        return output(encoded.values), encoded.mask


TINY = MaskedLM(TransformerEncoder(Words(vocabulary=9), layers=1, dim=8, heads=2, hidden=12))
