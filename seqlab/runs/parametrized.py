"""The parameters of an experiment: the parameters of its model and those that a parametrization adds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
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
    return {**params, ADDED: experiment.parametrization.init(key, flatten_dict(params, sep="/"), input_axes)}


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
