"""A trained model as decoding uses it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from seqlab.codecs.codec import Codecs, encode_values
from seqlab.data.task import Task
from seqlab.system.errors import SeqlabError
from seqlab.types import Params


class TrainedModel(NamedTuple):
    """A model with its parameters, task and codecs. `model` may be an ensemble."""

    task: Task
    model: Any
    params: Params
    codecs: Codecs

    def encode(self, lines: Sequence[str]) -> list[Any]:
        """Returns the rows of input lines, which are sources, or prompts for a task without sources. Raises
        `SeqlabError` for a task whose inputs have several columns.
        """
        column, *more = self.task.input_columns
        if more:
            columns = ", ".join(map(repr, self.task.input_columns))
            raise SeqlabError(f"{type(self.task).__name__} reads the columns {columns}: use `seqlab predict`")
        return encode_values(lines, self.codecs[column])
