"""TODO training.explain."""

import dataclasses
from collections.abc import Iterator

import jax

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.padding import blank_batch
from seqlab.distributed.devices import described
from seqlab.distributed.sharding import explain
from seqlab.training.checks import check
from seqlab.training.state import initial_state


def explained(experiment: Experiment) -> Iterator[str]:
    """Where each part of the state lies on the axes of the mesh, and how much a device has of it."""
    check(experiment)
    model = catalogue.sized(experiment.model, experiment.text.size)
    experiment = dataclasses.replace(experiment, model=model)
    state = jax.eval_shape(lambda: initial_state(experiment, blank_batch(experiment.task)))
    parallel = experiment.parallel
    yield described(parallel)
    shared = (parallel.fsdp, parallel.tensor)
    yield from explain(state.params, *shared)
    *_, total = explain({"optimizer": state.optimizer, "average": state.average}, *shared)
    size, share = total.split()[-2:]
    yield f"beside them, the optimizer's state, which lies as they do: {size} MiB, {share} MiB a device"
