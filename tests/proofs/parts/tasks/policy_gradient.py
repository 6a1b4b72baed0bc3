"""Policy gradient (Williams 1992) with a clipped ratio (Schulman et al. 2017), with one action per state.

A rollout samples actions, which are correct or wrong. Updates maximize the clipped ratio times the advantage.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from seqlab.codecs.label import Label
from seqlab.codecs.symbols import Symbols
from seqlab.layers.losses import model_outputs
from seqlab.tasks.classification import Classification
from seqlab.types import Loss


@struct.dataclass
class Experience:
    """A rollout: actions [B], their log-probabilities when sampled, advantages, and the weights of the rows."""

    inputs: Any
    actions: Any
    log_probs: Any
    advantages: Any
    weights: Any


@dataclass(frozen=True)
class PolicyGradient(Classification):
    updates: int = 3
    clip: float = 0.2

    columns = MappingProxyType({"source": Symbols(), "label": Label()})
    metrics = ("accuracy",)

    def rollout(self, model, params, batch, context):
        logits = model_outputs(model, params, batch.inputs)
        actions = jax.random.categorical(context.key, logits)
        rewards = (actions == batch.targets).astype(jnp.float32)
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), actions[:, None], axis=-1)[:, 0]
        expected = jnp.take_along_axis(jax.nn.softmax(logits), batch.targets[:, None], axis=-1)[:, 0]
        return Experience(batch.inputs, actions, log_probs, rewards - expected, batch.weights)

    def loss(self, model, params, batch, context):
        logits = model_outputs(model, params, batch.inputs)
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.actions[:, None], axis=-1)[:, 0]
        ratio = jnp.exp(log_probs - batch.log_probs)
        clipped = jnp.clip(ratio, 1 - self.clip, 1 + self.clip)
        gains = jnp.minimum(ratio * batch.advantages, clipped * batch.advantages)
        sums = {"ratio": (ratio * batch.weights).sum()}
        return Loss(-(gains * batch.weights).sum(), batch.weights.sum(), sums)


TASK = PolicyGradient
