"""The gradient check: derivatives against central differences, in float64."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from seqlab.config import Experiment
from seqlab.evaluation.diagnosis.gradients import leaf_names
from seqlab.layers.nesting import with_fields
from seqlab.runs.parametrized import loss_of
from seqlab.training.step import LossFunction
from seqlab.types import Batch, Context, Params

NUDGES = (1e-5, 1e-7)  # step sizes: about the cube root of the precision of float64; a smaller one for kinks
WRONG = 1e-4  # maximum relative error of a gradient with kinks: CS231n notes, gradient checks


def in_float64(experiment: Experiment) -> LossFunction:
    """Returns the loss of an experiment with its model in float64."""
    return loss_of(dataclasses.replace(experiment, model=with_fields(experiment.model, dtype="float64")))


def gradient_check(
    loss: LossFunction, params: Params, batch: Batch, rows: int = 4, seed: int = 0
) -> dict[str, float]:
    """Returns for each parameter the error of the derivative of the mean loss along a direction, against central
    differences, relative to the larger of both; the worst of two directions. In float64, without dropout, on the
    first `rows` of the batch.

    If the differences disagree, they are taken again with a smaller step, which removes the effect of a kink but not
    of a wrong gradient. A direction is random plus the gradient, so that the derivative is not small. The error is
    relative to at least 1e-5 of the norm of the whole gradient, the resolution of differences of rounded losses.
    """
    random = np.random.default_rng(seed)
    with jax.enable_x64(True):
        leaves, tree = jax.tree.flatten(jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), params))
        first_rows = jax.tree.map(lambda x: jnp.asarray(x[:rows], float if x.dtype == np.float32 else None), batch)

        def mean(leaves: list[jax.Array], batch: Batch) -> jax.Array:
            total, weight, _, _ = loss(jax.tree.unflatten(tree, leaves), batch, Context())
            return total / jnp.maximum(weight, 1.0)

        value = jax.jit(mean)
        gradients = [np.asarray(g) for g in jax.jit(jax.grad(mean))(leaves, first_rows)]
        smallest = 1e-5 * math.sqrt(sum((g * g).sum() for g in gradients))

        def error(i: int, nudge: float, direction: np.ndarray) -> float:
            ends = [
                value([*leaves[:i], leaves[i] + h * direction, *leaves[i + 1 :]], first_rows) for h in (nudge, -nudge)
            ]
            measured, claimed = float(ends[0] - ends[1]) / (2 * nudge), float((gradients[i] * direction).sum())
            return abs(measured - claimed) / max(abs(measured), abs(claimed), smallest)

        errors = {}
        for i, name in enumerate(leaf_names(params)):
            directions = [unit(unit(random.normal(size=leaves[i].shape)) + unit(gradients[i])) for _ in range(2)]
            way_errors = [error(i, NUDGES[0], direction) for direction in directions]
            if not np.max(way_errors) < WRONG:
                way_errors = [error(i, NUDGES[1], direction) for direction in directions]
            errors[name] = float(np.max(way_errors))
    return errors


def unit(x: np.ndarray) -> np.ndarray:
    return x / (np.linalg.norm(x) or 1.0)
