"""TODO training.context"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from seqlab.config import Experiment
from seqlab.data.plans import Plan, Rows
from seqlab.distributed.devices import Runner
from seqlab.system.signals import Wish
from seqlab.types import Params, TrainState


class TrainingContext(NamedTuple):
    """What the loop works on and with."""

    experiment: Experiment
    runner: Runner
    shapes: TrainState
    """Of step 0, for all devices."""
    create: Callable[[], TrainState]
    """Step 0, on the devices."""
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    plan: Plan
    collate: Callable[[Rows], Any]
    validate: Callable[[Params], dict[str, float]]
    run: Path
    say: Callable[[str], None]
    wish: Wish


MOST_IN_A_ROW = 20  # updates left out, or rollbacks to one checkpoint, before a run is given up


class NotFinite(Exception):
    """A loss or gradient of `step`."""

    def __init__(self, step: int, epoch: int, index: int):
        self.step, self.batch = step, [epoch, index]


def advice(run: Path, checkpoint: int | None) -> str:
    """What to do about what is not finite, where there is a good checkpoint or none."""
    start = f", with --init-from {run}" if checkpoint else ""
    return f"Try a lower schedule.peak, a longer warm-up, or clipping, in a new run{start}"


def place(work: TrainingContext, epoch: int, index: int) -> str:
    return f"epoch {epoch}, batch {index}; seqlab show-batch {work.run} --batch {epoch}/{index}"
