"""The contract of a task: a frozen dataclass that says what an example is, how examples become batches, and what is
minimized.

A task for generators also has `requests(inputs, codecs, max_length)`, what each input asks of the search; a task
that answers without a search has `answer` instead. Two attributes are optional: `separator`, which replaces the
newlines of a source in a typed line, and `baseline(sources, train)`, the name and the answers of a trivial method.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from seqlab.codecs.codec import Codecs
from seqlab.config import Batching
from seqlab.data.corpus import Corpus
from seqlab.data.plans import BatchPlan, Plan
from seqlab.types import Batch, Context, Loss, Params


@runtime_checkable
class Task(Protocol):
    model: ClassVar[type]
    """The protocol in `seqlab.types` of the models that it trains."""
    columns: Mapping[str, str]
    """The columns of an example, and what each holds: "text", the name of a "class", "symbols" or "numbers"."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names in `seqlab.metrics.registry` that judge answers; none: the task is judged by its loss alone."""
        ...

    def plan(self, corpus: Corpus, batching: Batching) -> Plan: ...
    def collate(self, corpus: Corpus, batch_plan: BatchPlan, codecs: Codecs) -> Batch: ...
    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss: ...
