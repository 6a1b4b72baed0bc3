"""A tabular policy: a logit for each action in each state."""

from flax import linen as nn

from seqlab.readers.words import Words
from seqlab.types import Classifier


class PolicyTable(nn.Module, Classifier):
    reader: nn.Module = Words()
    classes: int = 0

    @nn.compact
    def classify(self, inputs, *, train):
        table = self.param("table", nn.initializers.zeros, (self.reader.vocabulary, self.classes))
        return table[inputs.ids[:, 0]]


TINY = PolicyTable(Words(vocabulary=9), classes=3)
