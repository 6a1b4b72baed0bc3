"""A trained model as decoding uses it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from seqlab.codecs.codec import Codecs
from seqlab.types import Params


class TrainedModel(NamedTuple):
    """A model with its parameters, its task and its codecs. `model` may be an ensemble."""

    task: Any
    model: Any
    params: Params
    codecs: Codecs

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of lines of input: of sources, or of prompts for a task that has none."""
        return self.codecs["source" if "source" in self.task.columns else "target"].encode(lines)
