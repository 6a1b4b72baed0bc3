"""Image captioning: translation with a source that is not text."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from seqlab_parts.codecs.image import Image

from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.data.plan_cache import bucket_plan
from seqlab.tasks.translation import Translation

EOS = np.array([0, 1])  # additional positions on each side


@dataclass(frozen=True)
class Captioning(Translation):
    columns = MappingProxyType({"source": Image(), "target": SentencePiece()})

    @property
    def metrics(self):
        return ("exact_match",)

    def plan(self, corpus, batching):
        return bucket_plan(self, corpus, batching, lambda: corpus.lengths("source", "target") + EOS)

    def requests(self, inputs, codecs, max_length):
        return super().requests(inputs, codecs, max_length or 24)

    def baseline(self, sources, train):
        return "always left", ["a bar at the left"] * len(sources)


TASK = Captioning
