"""The parameters of an experiment: the parameters of its model and those that a parametrization adds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab.config import Experiment
from seqlab.parametrizations.parametrization import Parametrization
from seqlab.runs.parameters import axes_of, init_model_parameters
from seqlab.system.errors import SeqlabError
from seqlab.types import Context, Loss, Params

ADDED = "added"  # the branch of the added parameters, next to "params"
ADDED_KEY = 1  # folded into the seed, so that added parameters are sampled independently of the model
NOTHING: Mapping[str, Any] = MappingProxyType({})


def init_experiment_parameters(experiment: Experiment, initial: Mapping[str, Any] = NOTHING) -> Params:
    """Returns the initial parameters of an experiment, including those of its parametrization, if any.

    `initial` replaces parameters of the model, by path. The parametrization is initialized from the result.
    """
    params = init_model_parameters(experiment.model, experiment.seed)
    if initial:
        params = unflatten_dict({**flatten_dict(params, sep="/"), **initial}, sep="/")
    return params if experiment.parametrization is None else parametrize(experiment, params)


def parametrize(experiment: Experiment, params: Params) -> Params:
    """Returns the parameters of an experiment whose base are these parameters of its model: those of the base that
    the parametrization does not replace, and those that it adds.

    Raises `SeqlabError` if the parametrization does not fit the model.
    """
    parametrization, name = experiment.parametrization, type(experiment.parametrization).__name__
    input_axes = {f"params/{path}": axes.input_count for path, axes in axes_of(experiment.model).items()}
    key = jax.random.fold_in(jax.random.key(experiment.seed), ADDED_KEY)
    base: dict[str, Any] = flatten_dict(params, sep="/")  # pyright: ignore[reportAssignmentType]
    added, replaced = parametrization.init(key, base, input_axes), parametrization.replaces(base, input_axes)
    if not isinstance(replaced, frozenset) or replaced - base.keys():
        raise SeqlabError(f"{name}.replaces must return a frozenset of paths of base parameters")
    if not adds_nothing(parametrization):
        check_added(added, name, integers=bool(replaced))
    remaining = {path: leaf for path, leaf in base.items() if path not in replaced}
    check_applied(experiment, base, remaining, added)
    return {**unflatten_dict(remaining, sep="/"), **({ADDED: added} if added else {})}


def adds_nothing(parametrization: Any) -> bool:
    """Returns whether a parametrization has no parameters of its own: its class defines no `init`."""
    return type(parametrization).init is Parametrization.init


def replaces_any(parametrization: Any) -> bool:
    """Returns whether a parametrization may replace base parameters: its class defines `replaces`."""
    return type(parametrization).replaces is not Parametrization.replaces


def check_added(added: Any, name: str, integers: bool) -> None:
    """Raises `SeqlabError` unless added parameters are nested dicts of floating-point arrays that are not empty, or
    also of arrays of `integers`.
    """
    kinds = (jnp.floating, jnp.integer) if integers else (jnp.floating,)
    leaves = jax.tree_util.tree_flatten_with_path(added, is_leaf=lambda x: not isinstance(x, dict))[0]
    if not isinstance(added, dict) or not leaves:
        raise SeqlabError(f"{name}.init adds no parameters to this model: check the fields of {name}")
    for path, leaf in leaves:
        keys = [entry.key for entry in path]
        if not all(isinstance(key, str) and "/" not in key for key in keys):
            raise SeqlabError(
                f"{name}.init: the keys of the added parameters must be strings without '/', not {keys}"
            )
        if not hasattr(leaf, "dtype") or not any(jnp.issubdtype(leaf.dtype, kind) for kind in kinds) or not leaf.size:
            kind = "floating-point or integer" if integers else "floating-point"
            raise SeqlabError(f"{name}.init: {'/'.join(keys)} must be a {kind} array that is not empty")


def check_applied(experiment: Experiment, base: dict[str, Any], remaining: dict[str, Any], added: Params) -> None:
    """Raises `SeqlabError` unless `apply`, given the `remaining` base parameters, returns parameters with the paths,
    shapes and types of the base.
    """
    name = type(experiment.parametrization).__name__
    applied: Any = jax.eval_shape(experiment.parametrization.apply, dict(remaining), added)
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
        return jax.eval_shape(lambda: init_experiment_parameters(experiment))
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
    return unflatten_dict(experiment.parametrization.apply(base, params.get(ADDED, {})), sep="/")


def trained_pattern(experiment: Experiment) -> str:
    """Returns the pattern of the trainable parameters: by default those that the parametrization adds, or all if it
    adds nothing or also trains the base.
    """
    parametrization, pattern = experiment.parametrization, experiment.optimizer.trainable
    if pattern or parametrization is None or adds_nothing(parametrization) or parametrization.trains_base:
        return pattern
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
