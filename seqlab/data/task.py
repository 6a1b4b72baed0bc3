"""The interface of tasks: the columns of an example, how examples become batches, the loss, and the predictions.

A task is a frozen dataclass in a separate file; its fields are hyperparameters.
"""

import abc
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from seqlab.codecs.codec import Codec, Codecs
from seqlab.config import Batching
from seqlab.data.corpus import Corpus
from seqlab.data.plans import BatchPlan, Plan
from seqlab.system.errors import SeqlabError
from seqlab.types import Context, Generator, Loss, Params, Tagger

Draw = tuple[int, int] | None
"""The seed of a run and the epoch, which determine random masks and augmentation; None in evaluation."""


def random_of(draw: Draw, index: Any) -> np.random.Generator:
    """Returns the random generator of an example. It depends only on the seed, the epoch and the example's index."""
    return np.random.default_rng([*(draw or ()), int(index)])


class Prediction(NamedTuple):
    """A prediction for an example: its text, its score, and further fields for `seqlab predict --json`."""

    text: str
    score: float | None = None
    details: Mapping[str, Any] = MappingProxyType({})


class Task(abc.ABC):
    """The base class of tasks. A task whose predictions are texts from a search defines `requests`; other tasks
    define `predict`.

    Optional: `baseline(sources, train)` returns the name and the predictions of a trivial method to compare with.
    """

    model: ClassVar[type]
    """Protocol in `seqlab.types` of the models that the task trains."""
    columns: Any
    """Mapping from the columns of an example to their unfitted codecs."""
    metrics: Any = ()
    """Names of the metrics for predictions; if empty, only the loss is reported."""
    corrupts: ClassVar[bool] = False
    """Whether batches contain randomly changed texts, as in masked-token prediction."""
    whole_batch: Any = False
    """Whether the loss of an example depends on the rest of its batch, so that batches are never split."""
    tokenized: Any = False
    """Whether texts are already tokenized, so that scores do not tokenize them."""
    separator: ClassVar[str | None] = None
    """Replacement for the newlines of a source in a line of text."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The input columns of predictions."""
        return ("source",) if "source" in self.columns else ("target",)

    @property
    def answer_column(self) -> str:
        """The column that predictions are compared with."""
        return "label" if "label" in self.columns else "target"

    @property
    def unit(self) -> str:
        """The unit that the loss is a mean of, "token" or "example", which signatures of scores name. The weight of a
        loss is the number of units.
        """
        return "token" if {Generator, Tagger} & {*self.model.__mro__} else "example"

    @property
    def searches(self) -> bool:
        """Whether predictions are texts from a search."""
        return type(self).requests is not Task.requests

    @abc.abstractmethod
    def plan(self, corpus: Corpus, batching: Batching) -> Plan:
        """Returns the plan that groups examples into batches."""

    @abc.abstractmethod
    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs, draw: Draw = None) -> Any:
        """Returns the batch for a batch plan: any struct of NumPy arrays [B ...]. Randomness must be a pure function
        of `draw` and the index of an example.
        """

    def malformed_examples(self, corpus: Corpus, codecs: Codecs) -> Iterable[str]:
        """Yields for each example that `collate` refuses what is wrong with it. Training checks all examples with it
        before the first step, so it must be fast. A task defines it if `collate` refuses examples.
        """
        return ()

    def blank(self, model: Any, rows: int, length: int) -> Any:
        """Returns a batch of zeros, sufficient to measure a model. A task whose batches are not the usual `Batch` of
        its kind of model defines it. None: the usual batch.
        """
        return None

    def places(self, batch: Any) -> Any:
        """Returns the position in the inputs that each target [B M] is predicted at, for `seqlab show-batch` and
        `seqlab diagnose`. If the targets are positions, returns them. None: there is one target per row or position.
        """
        return None

    @abc.abstractmethod
    def loss(self, model: Any, params: Params, batch: Any, context: Context) -> Loss:
        """Returns the loss summed over a batch [B ...], its weight and sums of metrics. Must be a pure function."""

    updates: ClassVar[int] = 1
    """Number of updates per rollout, for a task that is trained online."""

    def rollout(self, model: Any, params: Params, batch: Any, context: Context) -> Any:
        """Returns the batch for the loss, given a collated batch: a rollout of the current policy, sampled with
        `context.key`. Must be a pure function; it is compiled. Tasks that are trained online define it.
        """
        raise NotImplementedError

    @property
    def online(self) -> bool:
        """Whether the task is trained online, on rollouts."""
        return type(self).rollout is not Task.rollout

    def requests(self, inputs: Sequence[Any], codecs: Codecs, max_length: int) -> list[Any]:
        """Returns a search request for each row of the input column. If `max_length` is 0, the task chooses the
        maximum length.
        """
        raise NotImplementedError

    def predict(self, trained: Any, examples: Mapping[str, Sequence[Any]]) -> list[list[Prediction]]:
        """Returns the predictions for each example, best first. `examples` maps each input column to its rows."""
        raise SeqlabError(f"{type(self).__name__} predicts nothing: define requests or predict")

    @property
    def predicts(self) -> bool:
        """Whether there are predictions: texts that a search writes, or others."""
        return self.searches or type(self).predict is not Task.predict


def most_frequent(train: Iterable[Mapping[str, str]], column: str) -> str:
    """Returns the most frequent value of a column of the training examples."""
    ((value, _),) = Counter(example[column] for example in train).most_common(1)
    return value


def generates(task: Task) -> bool:
    """Returns whether the models of a task are generators."""
    return Generator in task.model.__mro__


def check_task(task: Task) -> None:
    """Raises `SeqlabError` for attributes of a task that do not have the types of `Task`."""
    name, columns = type(task).__name__, task.columns
    if not isinstance(getattr(task, "model", None), type):
        raise SeqlabError(f"{name}.model must be a protocol of seqlab.types, such as Classifier")
    if not isinstance(columns, Mapping) or not columns:
        raise SeqlabError(f"{name}.columns must map the columns of an example to codecs")
    for column, codec in columns.items():
        if not isinstance(codec, Codec):
            raise SeqlabError(f"{name}.columns: {column!r} must have a codec such as Label(), not {codec!r:.60}")
        try:
            hash(codec)
        except TypeError:
            raise SeqlabError(f"{type(codec).__name__} must be a frozen dataclass with hashable fields") from None
    if not isinstance(task.metrics, tuple) or not all(isinstance(metric, str) for metric in task.metrics):
        raise SeqlabError(f"{name}.metrics must be a tuple of names of metrics, not {task.metrics!r}")
    if not isinstance(task.updates, int) or task.updates < 1:
        raise SeqlabError(f"{name}.updates must be an integer of at least 1, not {task.updates!r}")
    inputs = task.input_columns
    if task.predicts and not (isinstance(inputs, tuple) and inputs and set(inputs) <= columns.keys()):
        raise SeqlabError(
            f"{name}.input_columns must be a tuple of names of columns ({', '.join(columns)}), not {inputs!r}"
        )
    if task.metrics and task.answer_column not in columns:
        raise SeqlabError(f"{name}.answer_column must be one of {', '.join(columns)}, not {task.answer_column!r}")
