"""The objects that the training loop uses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from seqlab.config import Experiment
from seqlab.data.plans import BatchPlan, Plan
from seqlab.distributed.devices import Runner
from seqlab.system.signals import StopRequest
from seqlab.types import Params, TrainState


class TrainingContext(NamedTuple):
    """The objects that the training loop uses. They do not change during a run."""

    experiment: Experiment
    runner: Runner
    shapes: TrainState
    """The shapes of the state, for all devices."""
    base: Params
    """The parameters of the base run, if this run shares them; otherwise None."""
    create_state: Callable[[], TrainState]
    """Returns the state at step 0, on the devices."""
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    """The compiled training step, which donates its state."""
    plan: Plan
    collate: Callable[[BatchPlan, int], Any]
    """Returns the batch for a batch plan and an epoch."""
    validate: Callable[[Params], dict[str, float]]
    """Returns the validation loss and other scores of the given parameters."""
    run: Path
    """The folder of the run."""
    say: Callable[[str], None]
    """Prints a line for the user."""
    stop_request: StopRequest
