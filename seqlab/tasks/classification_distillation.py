"""Classification with a teacher: trains a small encoder on the logits of a large one (Tang et al. 2019).

The reference "teacher" names its run: `--references teacher ../teacher`.
"""

from dataclasses import dataclass
from typing import Any

import jax

from seqlab.layers.losses import model_outputs
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.tasks.distillation import check_share, mix_losses, teacher_of
from seqlab.types import Batch, Context, Loss, Params


@dataclass(frozen=True)
class ClassificationDistillation(Classification):
    """The loss is a weighted sum of the mean squared error of the logits and of the cross-entropy with the labels of
    the data. In evaluation only the labels count.
    """

    share: float = 1.0
    """Weight of the teacher's logits, from 0 to 1; the labels of the data have the rest."""

    def __post_init__(self) -> None:
        Classification.__post_init__(self)
        check_share(self.share)
        if self.mixup:
            raise SeqlabError("task.mixup is not supported with a teacher: leave it at 0")

    def loss(self, model: Any, params: Params, batch: Batch, context: Context) -> Loss:
        """Returns `share` times the mean squared error of the logits plus 1 - `share` times the cross-entropy with
        the targets; in evaluation only the latter.
        """
        teacher, train = teacher_of(context), context.key is not None
        logits = model_outputs(model, params, batch.inputs, context.key)

        def teacher_loss() -> jax.Array:
            expected = model_outputs(teacher.model, teacher.params, batch.inputs)
            return ((logits - expected) ** 2).mean(-1)

        return mix_losses(logits, batch, train, self.share, self.label_smoothing, teacher_loss)


TASK = ClassificationDistillation
