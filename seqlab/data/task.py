"""The contract of a task: what an example is, how examples become batches, what is minimized, and what is predicted.

A task is a frozen dataclass in a file of its own, whose fields are hyperparameters.
"""

import abc
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from seqlab.codecs.codec import Codecs
from seqlab.config import Batching
from seqlab.data.corpus import Corpus
from seqlab.data.plans import BatchPlan, Plan
from seqlab.system.errors import SeqlabError
from seqlab.types import Context, Generator, Loss, Params

Draw = tuple[int, int] | None
"""The seed of a run and an epoch, which random masks and augmentation of an example depend on; None in evaluation."""


class Prediction(NamedTuple):
    """One prediction for an example: its text, its score, and what else `seqlab predict --json` shows of it."""

    text: str
    score: float | None = None
    details: Mapping[str, Any] = MappingProxyType({})


class Task(abc.ABC):
    """What is trained. A task whose predictions are texts that a search writes defines `requests`; others `predict`.

    Optional: `baseline(sources, train)`, the name and the answers of a trivial method that a model must beat.
    """

    model: ClassVar[type]
    """The protocol in `seqlab.types` of the models that it trains."""
    columns: Any
    """A mapping from the columns of an example to their unfitted codecs."""
    metrics: Any = ()
    """The names of the metrics that judge predictions; none: the task is judged by its loss alone."""
    whole_batch: ClassVar[bool] = False
    """Whether the loss of an example depends on the others of its batch, which is then never worked on in parts."""
    tokenized: Any = False
    """Whether texts are tokenized, and scores take them as they are."""
    separator: ClassVar[str | None] = None
    """What stands for the newlines of a source in a line of text."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a prediction is made from."""
        return ("source",) if "source" in self.columns else ("target",)

    @property
    def answer_column(self) -> str:
        """The column that predictions are compared with."""
        return "label" if "label" in self.columns else "target"

    @property
    def searches(self) -> bool:
        """Whether predictions are texts that a search writes."""
        return type(self).requests is not Task.requests

    @abc.abstractmethod
    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        """Returns the plan that says which examples make a batch."""

    @abc.abstractmethod
    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Any:
        """Returns the batch of some rows: any struct of NumPy arrays [B ...]. Randomness is a pure function of `draw`
        and an example's index.
        """

    @abc.abstractmethod
    def loss(self, model: Any, params: Params, batch: Any, context: Context) -> Loss:
        """Returns the sum of the loss over a batch [B ...], its weight and sums of metrics. A pure function."""

    updates: ClassVar[int] = 1
    """Updates for each rollout, of a task that is trained online."""

    def rollout(self, model: Any, params: Params, batch: Any, context: Context) -> Any:
        """Returns the batch that the loss is of, given one that was collated: what the current policy does, sampled
        by `context.key`. A pure function, compiled. Tasks that are trained online define it.
        """
        raise NotImplementedError

    @property
    def online(self) -> bool:
        """Whether the task is trained on rollouts."""
        return type(self).rollout is not Task.rollout

    def requests(self, inputs: Sequence[Any], codecs: Codecs, max_length: int) -> list[Any]:
        """Returns a search request for each row of the input column. With a `max_length` of 0, the task chooses the
        length.
        """
        raise NotImplementedError

    def predict(self, trained: Any, examples: Mapping[str, Sequence[Any]]) -> list[list[Prediction]]:
        """Returns the predictions for each example, best first. `examples` maps each input column to its rows."""
        raise SeqlabError(f"{type(self).__name__} predicts nothing: define requests or predict")

    @property
    def predicts(self) -> bool:
        """Whether there are predictions: texts that a search writes, or others."""
        return self.searches or type(self).predict is not Task.predict


def generates(task: Task) -> bool:
    """Whether the models of a task are generators."""
    return Generator in task.model.__mro__
