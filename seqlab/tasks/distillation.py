"""Translation with a teacher: trains a student on the teacher's distribution over each token (Kim & Rush 2016).

The reference "teacher" names its run: `--references teacher ../teacher`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from seqlab.layers.losses import cross_entropy
from seqlab.system.errors import SeqlabError
from seqlab.tasks.translation import Translation
from seqlab.types import Batch, Context, Loss, Params, Reference

TEACHER = "teacher"


@dataclass(frozen=True)
class Distillation(Translation):
    """The loss is a weighted sum of the cross-entropy with the teacher's distribution and with the target tokens. In
    evaluation only the target tokens count.
    """

    share: float = 0.5
    """Weight of the teacher's distribution, from 0 to 1; the target tokens have the rest."""
    temperature: float = 1.0
    """Temperature of both distributions. The teacher's term of the loss is multiplied by its square, as in Hinton et
    al. (2015)."""

    def __post_init__(self) -> None:
        Translation.__post_init__(self)
        check_share(self.share)
        if not 0 < self.temperature < 1e6:
            raise SeqlabError(f"task.temperature must be above 0 and below 1,000,000, not {self.temperature}")
        if self.loss_chunk:
            raise SeqlabError("task.loss_chunk must be 0: distillation compares the logits of all positions")

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns `share` times the cross-entropy with the teacher's distribution plus 1 - `share` times that with
        the targets; in evaluation only the latter.
        """
        teacher, train = teacher_of(context), context.key is not None
        rngs = {"dropout": context.key} if train else None
        logits = model.apply(params, batch.inputs, batch.prefix, train=train, rngs=rngs, method="outputs")

        def teacher_loss() -> jax.Array:
            expected = teacher.model.apply(teacher.params, batch.inputs, batch.prefix, train=False, method="outputs")
            probabilities = jax.nn.softmax(expected / self.temperature)
            log_probs = jax.nn.log_softmax(logits / self.temperature)
            return -(probabilities * log_probs).sum(-1) * self.temperature**2

        loss = mix_losses(logits, batch, train, self.share, self.label_smoothing, teacher_loss)
        if train:
            del loss.sums["correct"]
        return loss


def mix_losses(
    logits: jax.Array,
    batch: Batch,
    train: bool,
    share: float,
    label_smoothing: float,
    teacher_loss: Callable[[], jax.Array],
) -> Loss:
    """Returns `share` times the teacher's loss plus 1 - `share` times the cross-entropy with the targets; in
    evaluation the cross-entropy, without label smoothing. `teacher_loss` returns the teacher's loss of each target.
    """
    loss, weight, sums = cross_entropy(logits, batch.targets, batch.weights, label_smoothing if train else 0.0)
    if train:
        loss = share * (teacher_loss() * batch.weights).sum() + (1 - share) * loss
    return Loss(loss, weight, sums)


def check_share(share: float) -> None:
    """Raises `SeqlabError` unless the weight of a teacher is from 0 to 1."""
    if not 0 <= share <= 1:
        raise SeqlabError(f"task.share must be from 0 to 1, not {share}")


def teacher_of(context: Context) -> Reference:
    """Returns the teacher. Raises `SeqlabError` if the experiment names none."""
    if TEACHER not in context.references:
        raise SeqlabError("distillation needs a teacher: --references teacher RUN")
    return context.references[TEACHER]


TASK = Distillation
