"""The stream of training batches. Threads make the batches in advance."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import grain

from seqlab.data.plans import Plan
from seqlab.distributed.devices import collate_local_rows
from seqlab.system.errors import SeqlabError
from seqlab.training.context import TrainingContext
from seqlab.training.progress import Progress


def stream_own_batches(context: TrainingContext, progress: Progress) -> Iterator[tuple[int, int, Any]]:
    """Yields (epoch and index of the next batch, batch) endlessly, starting at `progress`. A batch has only the rows
    of this process.
    """
    collate = collate_local_rows(context.runner, context.collate)
    for epoch, index, batch in stream_batches(
        context.plan, context.experiment.seed, collate, progress.epoch, progress.index
    ):
        if (epoch, index - 1) not in progress.left_out:
            yield epoch, index, batch


def stream_batches(
    plan: Plan, seed: int, collate: Callable[..., Any], epoch: int, index: int
) -> Iterator[tuple[int, int, Any]]:
    """Yields (epoch and index of the next batch, batch) endlessly, starting at an epoch and index.

    `collate(batch_plan, epoch=epoch)` makes a batch.
    """
    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    while True:
        batch_plans = grain.MapDataset.source(plan.batches(seed, epoch))
        try:
            make: Any = functools.partial(collate, epoch=epoch)
            for batch in batch_plans.slice(slice(index, None)).map(make).to_iter_dataset(ahead):
                index += 1
                yield epoch, index, batch
        except SeqlabError as error:  # Grain appends lines to the message
            raise SeqlabError(str(error).partition("\n")[0]) from None
        epoch, index = epoch + 1, 0
