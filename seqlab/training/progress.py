"""The progress of a run: its position in the data, its best validation, and whether it has stopped early."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seqlab.config import Validation
from seqlab.metrics.registry import find_metric
from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import fits

BatchPosition = tuple[int, ...]
"""The epoch of a batch and its index in the epoch, both from 0."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a run, stored in the manifest of each checkpoint. The defaults describe a new run."""

    epoch: int = 0
    """The epoch of the next batch."""
    index: int = 0
    """The index of the next batch in its epoch."""
    left_out: tuple[BatchPosition, ...] = ()
    """The batches that training skips."""
    best: float | None = None
    """The best value of the validation metric."""
    best_step: int | None = None
    """The step with the best value."""
    waited: int = 0
    """The number of validations since the best one."""
    judged: bool = True
    """Whether the last saved state has been validated, or needs no validation."""
    stopped: bool = False
    """Whether early stopping has ended the run."""

    def to_json(self) -> dict[str, Any]:
        """Returns the progress as JSON values."""
        return {**dataclasses.asdict(self), "left_out": [list(batch) for batch in self.left_out]}

    @classmethod
    def from_json(cls, values: dict[str, Any], run: Path, step: int) -> "Progress":
        """Returns the progress stored in a checkpoint of `run`. Raises `SeqlabError` for other values."""
        if "epoch" not in values:
            kind = next(
                (kind for kind in ("averaged", "merged", "pruned", "quantized") if kind in values), "imported"
            )
            raise SeqlabError(
                f"{run} has {kind} parameters, from which training cannot resume: use them with --init-from"
            )
        if not all(fits(values.get(name), kind) for name, kind in JSON_TYPES.items()):
            raise SeqlabError(
                f"{run}: checkpoint {step} lacks the progress of the run: another version of seqlab wrote it; use it "
                "in a new run with --init-from"
            )
        stored = {name: values[name] for name in JSON_TYPES if name in values}
        return cls(**{**stored, "left_out": tuple(tuple(batch) for batch in values["left_out"])})

    def without_batches(self, batches: Iterable[BatchPosition]) -> "Progress":
        """Returns the progress of a run that also skips these batches."""
        added = tuple(batch for batch in batches if batch not in self.left_out)
        return dataclasses.replace(self, left_out=(*self.left_out, *added))

    def after_validation(self, validation: Validation, step: int, values: dict[str, float]) -> "Progress":
        """Returns the progress after a validation at `step`, including whether to stop early."""
        value = values[validation.metric]
        name = validation.metric
        sign = -1 if name == "loss" or find_metric(name).lower_is_better else 1
        if self.best is None or sign * value > sign * self.best:
            after = dataclasses.replace(self, best=value, best_step=step, waited=0)
        else:
            after = dataclasses.replace(self, waited=self.waited + 1)
        return dataclasses.replace(after, judged=True).with_patience(validation.patience)

    def with_patience(self, patience: int) -> "Progress":
        """Returns the progress with the decision whether to stop early after `patience` validations."""
        return dataclasses.replace(self, stopped=0 < patience <= self.waited)


JSON_TYPES: dict[str, Any] = {
    "epoch": int,
    "index": int,
    "left_out": list[list[int]],
    "best": float | None,
    "best_step": int | None,
    "waited": int,
    "judged": bool,
    "stopped": bool,
}
"""The types of the values of `Progress.to_json`."""
