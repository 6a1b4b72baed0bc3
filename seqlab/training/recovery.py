"""Recovery from losses that are not finite: training rolls back to the last checkpoint and skips the batch."""

import jax

from seqlab.distributed.hosts import on_process_zero
from seqlab.runs import manifest
from seqlab.system.errors import SeqlabError
from seqlab.training.context import TrainingContext
from seqlab.training.loop import run_attempt
from seqlab.training.nonfinite import (
    MAX_IN_A_ROW,
    NonFiniteError,
    describe_batch,
    nonfinite_advice,
    show_batch_command,
)
from seqlab.training.progress import BatchPosition


def run_training(context: TrainingContext) -> None:
    """Trains to the last step, with as many attempts as `Experiment.nonfinite` allows.

    Raises `SeqlabError` for a loss that is not finite if training cannot recover from it, and if the last state
    cannot be saved; `Stopped` after a stop request, once the state is saved.
    """
    left_out: list[BatchPosition] = []
    rollbacks, rollback_step = 0, 0
    while True:
        try:
            return run_attempt(context, left_out)
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise SeqlabError(
                f"another process seems to have ended: {reason}; run the same command in all processes to resume "
                "from the last checkpoint"
            ) from error
        except NonFiniteError as error:
            step = on_process_zero(lambda: max(manifest.checkpoint_steps(context.run), default=0))
            rollbacks, rollback_step = (rollbacks + 1 if step == rollback_step else 1), step
            if context.experiment.nonfinite != "rollback" or rollbacks > MAX_IN_A_ROW:
                raise unrecovered(context, error, step) from None
            left_out.append(error.batch)
            context.say(
                f"THE LOSS OR GRADIENT OF STEP {error.step} IS NOT FINITE: ROLLED BACK to step {step}, continuing "
                f"without that batch ({show_batch_command(context.run, error.batch)})"
            )


def unrecovered(context: TrainingContext, error: NonFiniteError, checkpoint: int) -> SeqlabError:
    """Returns the error for the user. `checkpoint` is the step of the last checkpoint, or 0 if there is none."""
    if checkpoint:
        last_good = f"the last good checkpoint is at step {checkpoint}"
    else:
        last_good = "there is no checkpoint yet"
    if context.experiment.nonfinite == "stop":
        ending = ", or use --nonfinite skip or --nonfinite rollback"
    else:
        ending = f". Training stopped after {MAX_IN_A_ROW} such results in a row"
    batch = describe_batch(context.run, error.batch)
    advice = nonfinite_advice(context.run, checkpoint)
    return SeqlabError(
        f"the loss or gradient of step {error.step} is not finite ({batch}); {last_good}. {advice}{ending}"
    )
