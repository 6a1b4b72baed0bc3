"""The parameters of an experiment: the parameters of its model and those that a parametrization adds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab.config import Experiment
from seqlab.runs.parameters import axes_of, init_params
from seqlab.system.errors import SeqlabError
from seqlab.types import Context, Loss, Params

ADDED = "added"  # the branch of the added parameters, next to "params"
ADDED_KEY = 1  # folded into the seed, so that added parameters are sampled independently of the model


def init_parameters(experiment: Experiment) -> Params:
    """Returns the initial parameters of an experiment, including those of its parametrization, if any."""
    params = init_params(experiment.model, experiment.seed)
    if experiment.parametrization is None:
        return params
    input_axes = {f"params/{path}": axes.input_count for path, axes in axes_of(experiment.model).items()}
    key = jax.random.fold_in(jax.random.key(experiment.seed), ADDED_KEY)
    base = flatten_dict(params, sep="/")
    added = experiment.parametrization.init(key, base, input_axes)
    check_added(added, type(experiment.parametrization).__name__)
    check_applied(experiment, base, added)
    return {**params, ADDED: added}


def check_added(added: Any, name: str) -> None:
    """Raises `SeqlabError` unless added parameters are nested dicts of floating-point arrays that are not empty."""
    leaves = jax.tree_util.tree_flatten_with_path(added, is_leaf=lambda x: not isinstance(x, dict))[0]
    if not isinstance(added, dict) or not leaves:
        raise SeqlabError(f"{name}.init adds no parameters to this model: check the fields of {name}")
    for path, leaf in leaves:
        keys = [entry.key for entry in path]
        if not all(isinstance(key, str) and "/" not in key for key in keys):
            raise SeqlabError(
                f"{name}.init: the keys of the added parameters must be strings without '/', not {keys}"
            )
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating) or not leaf.size:
            raise SeqlabError(f"{name}.init: {'/'.join(keys)} must be a floating-point array that is not empty")


def check_applied(experiment: Experiment, base: dict[str, Any], added: Params) -> None:
    """Raises `SeqlabError` unless `apply` returns parameters with the paths, shapes and types of the base."""
    name = type(experiment.parametrization).__name__
    applied: Any = jax.eval_shape(experiment.parametrization.apply, dict(base), added)
    if not isinstance(applied, dict) or applied.keys() != base.keys():
        raise SeqlabError(f"{name}.apply must return a dict whose keys are the paths of the base parameters")
    for path, leaf in applied.items():
        if (leaf.shape, leaf.dtype) != (base[path].shape, base[path].dtype):
            kinds = f"{leaf.dtype} {leaf.shape}, not {base[path].dtype} {base[path].shape}"
            raise SeqlabError(f"{name}.apply returns {path} as {kinds}")


def parameter_shapes(experiment: Experiment, folder: Path) -> Params:
    """Returns the shapes of the parameters of an experiment.

    Raises `SeqlabError`, naming `folder`, if the model cannot be built.
    """
    try:
        return jax.eval_shape(lambda: init_parameters(experiment))
    except Exception as error:  # layers raise many types of errors for invalid sizes
        reason = str(error).partition("\n")[0]
        raise SeqlabError(
            f"{folder}: the model of the experiment cannot be built ({reason}): check the sizes of the model"
        ) from None


def apply_parametrization(experiment: Experiment, params: Params) -> Params:
    """Returns the parameters of the model, after applying the parametrization, if any."""
    if experiment.parametrization is None:
        return params
    base = flatten_dict({name: branch for name, branch in params.items() if name != ADDED}, sep="/")
    return unflatten_dict(experiment.parametrization.apply(base, params[ADDED]), sep="/")


def trained_pattern(experiment: Experiment) -> str:
    """Returns the pattern of the trainable parameters: by default those of the parametrization, or else all."""
    if experiment.optimizer.trainable or experiment.parametrization is None:
        return experiment.optimizer.trainable
    return f"^{ADDED}/"


def rollout_of(experiment: Experiment) -> Callable[[Params, Any, Context], Any]:
    """Returns the rollout of an experiment as a function of all its parameters; offline tasks return the batch."""

    def rollout(params: Params, batch: Any, context: Context) -> Any:
        if not experiment.task.online:
            return batch
        made = experiment.task.rollout(experiment.model, apply_parametrization(experiment, params), batch, context)
        return jax.lax.stop_gradient(made)

    return rollout


def loss_of(experiment: Experiment) -> Callable[[Params, Any, Context], Loss]:
    """Returns the loss of an experiment as a function of all its parameters."""

    def loss(params: Params, batch: Any, context: Context) -> Loss:
        return experiment.task.loss(experiment.model, apply_parametrization(experiment, params), batch, context)

    return loss
