"""The files that the training loop writes, and its progress bar."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from seqlab.distributed.hosts import is_process_zero
from seqlab.runs.log import Logbook
from seqlab.runs.saving import Saver
from seqlab.runs.trail import Trail
from seqlab.system.progress_bar import progress
from seqlab.training.context import TrainingContext


class Outputs(NamedTuple):
    """The outputs of the training loop. Only process 0 writes the log and the trail."""

    advance: Callable[..., None]
    """Advances the progress bar by a number of steps and shows a note."""
    log: Logbook | None
    trail: Trail | None
    """None also if the experiment writes no hashes."""
    saver: Saver


@contextlib.contextmanager
def open_outputs(context: TrainingContext, start: int, judged: bool) -> Iterator[Outputs]:
    """Opens the outputs of a run that resumes from step `start`, and closes them at the end of the block.

    `judged`: whether the state at `start` has been validated. Stop requests are deferred while the outputs are open.
    """
    experiment, run = context.experiment, context.run
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress("training", experiment.steps, start))
        log = trail = None
        if is_process_zero():
            log = Logbook(run, start, experiment.log_every, context.say, judged=judged)
            stack.callback(log.close)
            if experiment.hash_every:
                trail = Trail(run, start)
                stack.callback(trail.close)
        saver = Saver(run, experiment.checkpoints.last, context.say, experiment.validation.every)
        stack.callback(saver.close)
        stack.enter_context(context.stop_request.deferral())
        yield Outputs(advance, log, trail, saver)
