"""TODO data.task."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from seqlab.config import Batching
from seqlab.data.corpus import Corpus
from seqlab.data.plans import Plan, Rows
from seqlab.data.tokenizers import Tokenizers
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Carry, Params


@runtime_checkable
class Task(Protocol):
    KIND: ClassVar[str]
    """What kind of model it needs."""
    columns: Mapping[str, str]
    """The columns of an example, and what each holds: "text", the name of a "class", "symbols" or "numbers"."""
    metrics: tuple[str, ...]
    """The names in `seqlab.metrics.registry` that judge answers; none: the task is judged by its loss alone."""

    def plan(self, corpus: Corpus, batching: Batching) -> Plan: ...
    def collate(self, corpus: Corpus, rows: Rows, tokenizers: Tokenizers) -> Batch: ...
    def loss(self, model: Any, params: Params, batch: Batch, carry: Carry, key: Any) -> Any: ...


def make_batch(task: Any, corpus: Corpus, tokenizers: Tokenizers, rows: Rows) -> Batch:
    """The task's batch of some rows. Raises `SeqlabError` naming the corpus's folder where these do not make one: ids
    and plan are kept there, and were checked before they were.
    """
    try:
        return task.collate(corpus, rows, tokenizers)
    except SeqlabError as error:
        raise SeqlabError(f"{corpus.folder}: damaged ({error}); remove it, and it is made again") from None
