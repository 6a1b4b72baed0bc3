"""The stream of batches that training is fed. Threads make the batches ahead."""

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
    """Yields this process's rows of the batches from `progress` on, without end: (epoch and index of the next batch,
    batch).
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
    """Yields the batches from an epoch and index on, without end: (epoch and index of the next batch, batch).

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
        except SeqlabError as error:  # Grain adds lines of its own
            raise SeqlabError(str(error).partition("\n")[0]) from None
        epoch, index = epoch + 1, 0
