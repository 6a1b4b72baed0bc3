"""The parameters of a model: their initial values, their axes, and the parameters of a trained run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from seqlab.layers.axes import Axes, recording_axes
from seqlab.layers.nesting import blank_inputs, blank_tokens
from seqlab.runs import checkpoint, manifest
from seqlab.system.errors import SeqlabError
from seqlab.types import Generator, Params


def init_model_parameters(model: Any, seed: int) -> Params:
    """Returns the initial parameters of a model. They do not depend on the shapes of its inputs."""
    return make_initializer(model)(jax.random.key(seed), *blank_arguments(model))


def blank_arguments(model: Any) -> tuple[Any, Any]:
    """Returns placeholder inputs and a placeholder prefix, of one row."""
    return blank_inputs(model, 1, 2), blank_tokens(1, 2) if isinstance(model, Generator) else None


@functools.lru_cache(maxsize=64)
def make_initializer(model: Any) -> Callable[..., Params]:
    """Returns the jitted function from a key, inputs and a prefix to parameters, compiled once per model."""
    return jax.jit(functools.partial(model.init, train=False, method="outputs"))


def axes_of(model: nn.Module) -> dict[str, Axes]:
    """Returns the axes of the parameters of a model, by path."""
    initialize = functools.partial(model.init, train=False, method="outputs")  # not jitted: layers must be traced
    with recording_axes() as axes:
        jax.eval_shape(initialize, jax.random.key(0), *blank_arguments(model))
    return axes


def best_parameters(run: Path) -> Params:
    """Returns the parameters of the best checkpoint of a run. Raises `SeqlabError` if its parametrization
    adds parameters.
    """
    params = checkpoint.parameters_of(checkpoint.restore(run, manifest.choose_step(run)))
    if params.keys() != {"params"}:
        raise SeqlabError(
            f"{run} stores parameters of a parametrization, so other runs cannot start from it: start from its base "
            f"run, or from the run that `seqlab merge {run} --out NEW` writes"
        )
    return params
