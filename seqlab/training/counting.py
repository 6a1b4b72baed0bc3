"""Models that are estimated by counting: one pass over the training data, one checkpoint, no optimizer."""

import dataclasses

import jax
import numpy as np

from seqlab.runs import manifest
from seqlab.runs.checkpoint import check_shapes
from seqlab.runs.log import Logbook
from seqlab.runs.saving import save_alone
from seqlab.system.errors import SeqlabError
from seqlab.training.context import TrainingContext
from seqlab.training.progress import Progress


def run_counting(context: TrainingContext) -> None:
    """Counts the parameters and writes them as the only checkpoint of a run, at step 1. Does nothing if it exists.

    Raises `SeqlabError` if the counted parameters have the wrong shapes or the validation loss is infinite.
    """
    experiment, run = context.experiment, context.run
    if manifest.checkpoint_steps(run):
        context.say(f"{run}: the parameters are already counted")
        return
    if jax.process_count() > 1:
        raise SeqlabError(f"{type(experiment.model).__name__} is estimated by counting: run a single process")
    batches = (context.collate(batch_plan, 0) for batch_plan in context.plan.batches(experiment.seed, None))
    params = jax.tree.map(np.asarray, experiment.model.count(batches))
    check_shapes(params, context.shapes.params, run)
    values = context.validate(params)
    if not np.isfinite(values["loss"]):
        raise SeqlabError(
            f"{run}: the validation loss is not finite: a probability from counts is zero; use smoothing"
        )
    log = Logbook(run, 0, experiment.log_every, context.say)
    log.write(1, {f"validation {name}": value for name, value in values.items()})
    log.close()
    context.say("counted: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    progress = Progress().after_validation(experiment.validation, 1, values)
    state = {"params": params, "step": np.int32(1)}
    save_alone(run, state, 1, dataclasses.replace(progress, stopped=True).to_json())
