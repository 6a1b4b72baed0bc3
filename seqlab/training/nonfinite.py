"""Losses and gradients that are not finite. They are noticed one step late, so that no step waits for the device."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.training.context import TrainingContext
from seqlab.training.progress import BatchPosition

MAX_IN_A_ROW = 20  # updates left out, or rollbacks to one checkpoint, before a run is given up


class NonFiniteError(Exception):
    """The loss or a gradient of `step`, on the batch at the position `batch`, is not finite."""

    def __init__(self, step: int, batch: BatchPosition):
        super().__init__(step, batch)
        self.step, self.batch = step, batch


class StepResult(NamedTuple):
    """The result of a step. Its arrays may still be computed on the device."""

    step: int
    batch: BatchPosition
    finite: Any
    """Whether the loss and the gradients are finite."""
    stop_requested: Any
    """Whether any of several processes has been requested to stop."""


@dataclasses.dataclass
class DelayedCheck:
    """Checks that the result of each step is finite, one step after the step was started."""

    context: TrainingContext
    pending: StepResult | None = None
    """The result that has not been read yet."""
    skipped: int = 0
    """The number of updates in a row that were left out."""

    def submit(self, result: StepResult) -> None:
        """Stores the result of a step for the next `read`."""
        self.pending = result

    def read(self) -> Any:
        """Reads the stored result, if there is one, and returns whether any process has been requested to stop.

        Raises `NonFiniteError` for a result that is not finite, unless the experiment leaves out such updates.
        """
        if self.pending is None:
            return False
        result, self.pending = self.pending, None
        if bool(result.finite):
            self.skipped = 0
        else:
            self.skip_update(result)
        return result.stop_requested

    def skip_update(self, result: StepResult) -> None:
        """Reports an update that the step has left out. Raises `NonFiniteError` if it may not be left out."""
        self.skipped += 1
        if self.context.experiment.nonfinite != "skip" or self.skipped > MAX_IN_A_ROW:
            raise NonFiniteError(result.step, result.batch)
        batch = describe_batch(self.context.run, result.batch)
        self.context.say(
            f"THE LOSS OR GRADIENT OF STEP {result.step} IS NOT FINITE: ITS UPDATE IS LEFT OUT ({batch})"
        )


def nonfinite_advice(run: Path, checkpoint: int | None) -> str:
    """Returns what to do about a result that is not finite, given the step of a good checkpoint, if there is one."""
    start = f", with --init-from {run}" if checkpoint else ""
    return f"Try a lower schedule.peak, a longer warm-up, or clipping, in a new run{start}"


def describe_batch(run: Path, batch: BatchPosition) -> str:
    """Returns the position of a batch, and the command that shows it."""
    epoch, index = batch
    return f"epoch {epoch}, batch {index}; {show_batch_command(run, batch)}"


def show_batch_command(run: Path, batch: BatchPosition) -> str:
    """Returns the command that shows a batch."""
    epoch, index = batch
    return f"seqlab show-batch {run} --batch {epoch}/{index}"
