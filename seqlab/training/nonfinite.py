"""Detection of losses and gradients that are not finite, one step late, so that no step waits for the device."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.training.context import TrainingContext
from seqlab.training.progress import BatchPosition

MAX_IN_A_ROW = 20  # skipped updates, or rollbacks to one checkpoint, before the run fails


class NonFiniteError(Exception):
    """Reports that the loss or a gradient of `step`, on the batch at the position `batch`, is not finite."""

    def __init__(self, step: int, batch: BatchPosition):
        super().__init__(step, batch)
        self.step, self.batch = step, batch


class StepResult(NamedTuple):
    """The result of a step. The device may still be computing its arrays."""

    step: int
    batch: BatchPosition
    finite: Any
    """Whether the loss and the gradients are finite."""
    stop_requested: Any
    """Whether any of several processes has received a stop request."""


@dataclasses.dataclass
class DelayedCheck:
    """Checks that the result of each step is finite, one step after the step was started."""

    context: TrainingContext
    pending: StepResult | None = None
    """The result that has not been read yet."""
    skipped: int = 0
    """The number of consecutive skipped updates."""

    def submit(self, result: StepResult) -> None:
        """Stores the result of a step for the next `read`."""
        self.pending = result

    def read(self) -> Any:
        """Reads the stored result, if there is one. Returns whether any process has received a stop request.

        Raises `NonFiniteError` if the result is not finite, unless the experiment skips such updates.
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
        """Reports an update that the step has skipped. Raises `NonFiniteError` if it may not be skipped."""
        self.skipped += 1
        if self.context.experiment.nonfinite != "skip" or self.skipped > MAX_IN_A_ROW:
            raise NonFiniteError(result.step, result.batch)
        batch = describe_batch(self.context.run, result.batch)
        self.context.say(f"THE LOSS OR GRADIENT OF STEP {result.step} IS NOT FINITE: ITS UPDATE IS SKIPPED ({batch})")


def nonfinite_advice(run: Path, checkpoint: int | None) -> str:
    """Returns advice about a result that is not finite. `checkpoint`: the step of a good checkpoint, if any."""
    start = f", with --init-from {run}" if checkpoint else ""
    return f"Try a lower schedule.peak, a longer warm-up or gradient clipping in a new run{start}"


def describe_batch(run: Path, batch: BatchPosition) -> str:
    """Returns a description of the position of a batch, with the command that shows the batch."""
    epoch, index = batch
    return f"epoch {epoch}, batch {index}; {show_batch_command(run, batch)}"


def show_batch_command(run: Path, batch: BatchPosition) -> str:
    """Returns the command that shows a batch."""
    epoch, index = batch
    return f"seqlab show-batch {run} --batch {epoch}/{index}"
