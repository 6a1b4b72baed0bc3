"""Optimizers, as optax transformations."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from seqlab.config import Optimizer
from seqlab.training.trainable import scale_updates, unfreeze_gradually

NO_FACTORS: Mapping[str, float] = MappingProxyType({})


def optimizer_at(
    config: Optimizer,
    rate: Callable[[Any], jax.Array],
    factors: Mapping[str, float] = NO_FACTORS,
    updates: int = 1,
) -> optax.GradientTransformation:
    """Returns the optimizer with a learning rate that is a function of the number of updates. `factors` multiply the
    rates of parameters, by path; a step has a number of `updates`.
    """
    match config.name:
        case "adam":
            update = optax.adam(rate, config.beta1, config.beta2, config.epsilon)
        case "adamw":
            update = optax.adamw(
                rate,
                config.beta1,
                config.beta2,
                config.epsilon,
                weight_decay=config.weight_decay,
                mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
            )
        case "sgd":
            update = optax.sgd(rate)
        case "momentum":
            update = optax.sgd(rate, momentum=config.beta1)
        case "nesterov":
            update = optax.sgd(rate, momentum=config.beta1, nesterov=True)
        case "rmsprop":
            update = optax.rmsprop(rate, decay=config.beta2, eps=config.epsilon)
        case "adagrad":
            update = optax.adagrad(rate, eps=config.epsilon)
        case _:
            raise AssertionError(config.name)  # config.OPTIMIZERS lists no other
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    scale = [scale_updates(config.rates, factors)] if config.rates or factors else []
    update = optax.chain(*clip, update, *scale) if clip or scale else update
    update = unfreeze_gradually(update, config.unfreeze, updates) if config.unfreeze else update
    return optax.chain(add_l1(config.l1), update) if config.l1 else update


def add_l1(coefficient: float) -> optax.GradientTransformation:
    """Adds the subgradient of the L1 norm of matrices, which is 0 at 0, to the gradient."""
    return optax.stateless(
        lambda gradients, params: jax.tree.map(
            lambda g, p: g + coefficient * jnp.sign(p) if p.ndim > 1 else g, gradients, params
        )
    )
