"""A description of how the training state is sharded over the devices."""

from collections.abc import Iterator

import jax

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.batches import blank_batch
from seqlab.distributed.devices import describe_devices
from seqlab.distributed.sharding import explain
from seqlab.runs.parameters import axes_of
from seqlab.training.checks import check_experiment
from seqlab.training.state import initial_state


def describe_sharding(experiment: Experiment) -> Iterator[str]:
    """Yields lines that show the mesh axes of each part of the state and its size on each device."""
    check_experiment(experiment)
    experiment = catalogue.with_expected_sizes(experiment)
    state = jax.eval_shape(lambda: initial_state(experiment, blank_batch(experiment.model)))
    parallel = experiment.parallel
    yield describe_devices(parallel)
    sizes = (axes_of(experiment.model), parallel.fsdp, parallel.tensor)
    yield from explain(state.params, *sizes)
    *_, total = explain({"optimizer": state.optimizer, "average": state.average}, *sizes)
    size, share = total.split()[-2:]
    yield f"plus the optimizer state, sharded like the parameters: {size} MiB, {share} MiB per device"
