"""The parameters of a model: their shapes, their initial values, and those of a trained run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from seqlab.config import Experiment
from seqlab.layers.nesting import blank_inputs, blank_tokens
from seqlab.runs import checkpoint, manifest
from seqlab.system.errors import SeqlabError
from seqlab.types import Generator, Params


def parameter_shapes(experiment: Experiment, folder: Path) -> Params:
    """Returns the shapes of the parameters of an experiment's model.

    Raises `SeqlabError`, naming the `folder`, for a model that cannot be built.
    """
    try:
        return jax.eval_shape(lambda: init_params(experiment.model, 0))
    except Exception as error:  # whatever layers make of sizes that nobody would choose
        reason = str(error).partition("\n")[0]
        raise SeqlabError(f"{folder}: the model of its experiment cannot be built: {reason}") from None


def init_params(model: Any, seed: int) -> Params:
    """Returns initial parameters of a model, which do not depend on the rows or lengths of its inputs."""
    prefix = blank_tokens(1, 2) if isinstance(model, Generator) else None
    return make_initializer(model)(jax.random.key(seed), blank_inputs(model, 1, 2), prefix)


@functools.lru_cache(maxsize=64)
def make_initializer(model: Any) -> Callable[..., Params]:
    """Returns the jitted function from a key, inputs and a prefix to parameters, compiled once for each model."""
    return jax.jit(functools.partial(model.init, train=False, method="outputs"))


def load_params(run: Path, like: Params) -> Params:
    """Returns the parameters of the best checkpoint of a run.

    Raises `SeqlabError` if their shapes are not those of `like`.
    """
    step = manifest.choose_step(run)
    params = checkpoint.parameters_of(checkpoint.restore(run, step))
    difference = checkpoint.first_different_leaf(params, like, lambda x: x.shape)
    if difference is not None:
        name, old, new = difference
        raise SeqlabError(f"{run} has another model: {name} is {old} there and {new} here")
    return params
