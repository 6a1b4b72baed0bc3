"""TODO training.recovery."""

import jax

from seqlab.distributed.hosts import on_process_zero
from seqlab.runs import manifest
from seqlab.system.errors import SeqlabError
from seqlab.training.context import MOST_IN_A_ROW, NotFinite, TrainingContext, advice, place
from seqlab.training.loop import go_on


def run_steps(work: TrainingContext) -> None:
    """Raises `SeqlabError` for a loss that is not finite, as `Experiment.nonfinite` says, and for a last state that
    cannot be saved; `Stopped`, all saved, where a signal asks for the end.
    """
    left_out: list[list[int]] = []
    times, where = 0, 0
    while True:
        try:
            return go_on(work, left_out)
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise SeqlabError(
                f"another process has gone, it seems: {reason}; the same command on all goes on where the last "
                "checkpoint is"
            ) from error
        except NotFinite as bad:
            last = on_process_zero(lambda: max(manifest.checkpoint_steps(work.run), default=0))
            times, where = (times + 1 if last == where else 1), last
            if work.experiment.nonfinite != "rollback" or times > MOST_IN_A_ROW:
                good = f"the last good checkpoint is of step {last}" if last else "there is no checkpoint yet"
                if work.experiment.nonfinite == "stop":
                    also = "; or --nonfinite skip or rollback"
                else:
                    also = f". It was given up after {MOST_IN_A_ROW} in a row"
                raise SeqlabError(
                    f"the loss or gradient of step {bad.step} is not finite ({place(work, *bad.batch)}); {good}. "
                    f"{advice(work.run, last)}{also}"
                ) from None
            left_out.append(bad.batch)
            epoch, index = bad.batch
            work.say(
                f"THE LOSS OR GRADIENT OF STEP {bad.step} IS NOT FINITE: ROLLED BACK to step {last}, to go on "
                f"without that batch (seqlab show-batch {work.run} --batch {epoch}/{index})"
            )
