"""TODO training.feed."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from seqlab.data.plans import Plan, Rows
from seqlab.distributed.devices import collate_own
from seqlab.system.errors import SeqlabError
from seqlab.training.context import TrainingContext


def batch_stream(work: TrainingContext, position: dict[str, Any]) -> Iterator[tuple[int, int, Any]]:
    """This process's rows of the batches from a position on, for ever, each with the cursor of the next one; made
    ahead by threads.
    """
    epoch, index, left_out = position["epoch"], position["index"], position["left_out"]
    own = collate_own(work.runner, work.collate)
    for found in stream_of(work.plan, work.experiment.seed, own, epoch, index):
        if [found[0], found[1] - 1] not in left_out:
            yield found


def stream_of(
    plan: Plan, seed: int, collate: Callable[[Rows], Any], epoch: int, index: int
) -> Iterator[tuple[int, int, Any]]:
    """Batches from the cursor on, for ever, each with the cursor of the next one."""
    import grain

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    while True:
        rows = grain.MapDataset.source(plan.batches(seed, epoch))
        try:
            for batch in rows.slice(slice(index, None)).map(collate).to_iter_dataset(ahead):
                index += 1
                yield epoch, index, batch
        except SeqlabError as error:  # Grain adds lines of its own
            raise SeqlabError(str(error).partition("\n")[0]) from None
        epoch, index = epoch + 1, 0


def count_padding(batch: Any, counted: list[float]) -> None:
    """Adds the pads and the positions of a batch's inputs and prefix."""
    for tokens in (batch.inputs, batch.prefix):
        if tokens is not None:
            counted[0] += tokens.mask.size - np.count_nonzero(tokens.mask)
            counted[1] += tokens.mask.size
