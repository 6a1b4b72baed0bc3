"""Distillation: trains a student on the distribution of a teacher (Hinton et al. 2015; Kim & Rush 2016)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from seqlab.tasks.translation import Translation
from seqlab.types import Loss


@dataclass(frozen=True)
class Distillation(Translation):
    def loss(self, model, params, batch, context):
        """Returns the cross-entropy of the student relative to the distribution of the reference "teacher"."""
        teacher = context.references["teacher"]
        train = context.key is not None
        rngs = {"dropout": context.key} if train else None
        logits = model.apply(params, batch.inputs, batch.prefix, train=train, rngs=rngs, method="outputs")
        wanted = teacher.model.apply(teacher.params, batch.inputs, batch.prefix, train=False, method="outputs")
        losses = -(jax.nn.softmax(wanted) * jax.nn.log_softmax(logits)).sum(-1)
        correct = (logits.argmax(-1) == batch.targets) * batch.weights
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets[..., None], axis=-1)[..., 0]
        sums = {"nll": -(log_probs * batch.weights).sum(), "correct": jnp.float32(correct.sum())}
        return Loss((losses * batch.weights).sum(), batch.weights.sum(), sums)


TASK = Distillation
