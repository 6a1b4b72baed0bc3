"""A description of how the training state is sharded over the devices."""

from collections.abc import Iterator

import jax

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.distributed.devices import describe_devices
from seqlab.distributed.sharding import explain
from seqlab.runs.parameters import axes_of
from seqlab.runs.parametrized import init_experiment_parameters, trained_pattern
from seqlab.runs.trainable import split
from seqlab.training.averages import average_of
from seqlab.training.checks import check_experiment
from seqlab.training.state import optimizer_of


def describe_sharding(experiment: Experiment) -> Iterator[str]:
    """Yields lines that show the mesh axes of each part of the state and its size on each device."""
    check_experiment(experiment)
    experiment = catalogue.with_expected_sizes(experiment)
    params = jax.eval_shape(lambda: init_experiment_parameters(experiment))
    moments = jax.eval_shape(lambda: optimizer_of(experiment).init(split(params, trained_pattern(experiment))[0]))
    average = params if average_of(experiment.optimizer) else None
    parallel = experiment.parallel
    yield describe_devices(parallel)
    sizes = (axes_of(experiment.model), parallel.fsdp, parallel.tensor)
    yield from explain(params, *sizes)
    *_, total = explain({"optimizer": moments, "average": average}, *sizes)
    size, share = total.split()[-2:]
    yield f"plus the optimizer state, sharded like the parameters: {size} MiB, {share} MiB per device"
