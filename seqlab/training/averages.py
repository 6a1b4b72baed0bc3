"""Averages of the parameters over the steps of training."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from seqlab.config import Optimizer
from seqlab.types import AnyArray, Params

Average = Callable[[Params, Params, AnyArray], Params]
"""Returns the new average, given the average, the parameters after an update, and the number of updates before it."""


def average_of(config: Optimizer, updates: int = 1) -> Average | None:
    """Returns the average that an optimizer maintains, or None. A step of an online task has several `updates`."""
    if config.average:
        return moving_average(config.average)
    return mean_from((config.average_from - 1) * updates + 1) if config.average_from else None


def moving_average(decay: float) -> Average:
    """Returns a moving average.

    The decay is at most (1 + t) / (10 + t), so that the initial parameters soon lose their influence. Source:
    TensorFlow's ExponentialMovingAverage.
    """

    def update(average: Params, params: Params, t: AnyArray) -> Params:
        t = jnp.asarray(t, jnp.float32)
        return mixture(average, params, jnp.minimum(decay, (1.0 + t) / (10.0 + t)))

    return update


def mean_from(first: int) -> Average:
    """Returns the equal-weight mean of the parameters after each update from the update `first`, counted from 1
    (stochastic weight averaging, Izmailov et al. 2018). Before it, the average is equal to the parameters.
    """

    def update(average: Params, params: Params, t: AnyArray) -> Params:
        count = jnp.maximum(jnp.asarray(t, jnp.float32) + 2.0 - first, 1.0)
        return jax.tree.map(
            functools.partial(jnp.where, count == 1.0), params, mixture(average, params, 1.0 - 1.0 / count)
        )

    return update


def mixture(average: Params, params: Params, share: jax.Array) -> Params:
    return jax.tree.map(lambda a, p: share * a + (1.0 - share) * p, average, params)
