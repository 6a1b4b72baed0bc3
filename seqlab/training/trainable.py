"""Options of the optimizer that select parameters by patterns."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict

from seqlab.distributed.sharding import name_of
from seqlab.system.errors import SeqlabError
from seqlab.types import Params


def check_patterns(params: Params, option: str, patterns: Iterable[str]) -> None:
    """Raises `SeqlabError` if a pattern matches no parameter."""
    paths = list(flatten_dict(params, sep="/"))
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise SeqlabError(
                f"{option}: {pattern!r} matches no parameter; examples of paths: {', '.join(paths[:3])}"
            )


def scale_updates(rates: tuple[tuple[str, float], ...], factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of each parameter by the factor of the first pattern that matches its path, if any, and
    by the factor in `factors` of its path, if any.
    """

    def factor(path: str) -> float:
        return next((rate for pattern, rate in rates if re.search(pattern, path)), 1.0) * factors.get(path, 1.0)

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(lambda path, u: factor(name_of(path)) * u, updates)
    )


class UnfreezingState(NamedTuple):
    """The number of updates, and the state of the optimizer."""

    update: jax.Array
    optimizer: Any


def unfreeze_gradually(
    optimizer: optax.GradientTransformation, unfreeze: tuple[tuple[str, int], ...], updates: int
) -> optax.GradientTransformation:
    """Returns the optimizer with parameters that do not change before a step: that of the first pattern in `unfreeze`
    that matches their path. A step has a number of `updates`.

    Until then, the optimizer receives gradients of zero, so that moments remain zero. The update is -0.0, since the
    sum with it has the bits of the parameter, even those of -0.0.
    """

    def replaced(tree: Any, step: jax.Array, value: float) -> Any:
        def replace(path: Any, leaf: jax.Array) -> jax.Array:
            first = next((first for pattern, first in unfreeze if re.search(pattern, name_of(path))), 1)
            return jnp.where(step < first, value, leaf) if first > 1 else leaf

        return jax.tree_util.tree_map_with_path(replace, tree)

    def init(params: Params) -> UnfreezingState:
        return UnfreezingState(jnp.int32(0), optimizer.init(params))

    def update(gradients: Any, state: UnfreezingState, params: Params = None) -> tuple[Any, UnfreezingState]:
        step = state.update // updates + 1
        changes, inner = optimizer.update(replaced(gradients, step, 0.0), state.optimizer, params)
        return replaced(changes, step, -0.0), UnfreezingState(state.update + 1, inner)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
