"""Optimizers, as optax transformations."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from seqlab.config import Optimizer
from seqlab.training.trainable import scale_updates


def optimizer_at(config: Optimizer, rate: Callable[[Any], jax.Array]) -> optax.GradientTransformation:
    """Returns the optimizer with a learning rate that is a function of the number of updates."""
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
    scale = [scale_updates(config.rates)] if config.rates else []
    return optax.chain(*clip, update, *scale) if clip or scale else update
