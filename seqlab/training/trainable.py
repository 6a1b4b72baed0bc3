"""Options of the optimizer that select parameters by patterns."""

import re
from collections.abc import Iterable
from typing import Any

import jax
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


def scale_updates(rates: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """Multiplies the updates of each parameter by the factor of the first pattern that matches its path, if any."""

    def factor(path: Any) -> float:
        return next((rate for pattern, rate in rates if re.search(pattern, name_of(path))), 1.0)

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(lambda path, u: factor(path) * u, updates)
    )
