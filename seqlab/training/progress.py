"""TODO training.progress."""

from typing import Any

from seqlab.config import Experiment

LOWER_IS_BETTER = ("loss", "ter", "mse")

BEGINNING = {
    "epoch": 0,
    "index": 0,
    "left_out": [],
    "best": None,
    "best_step": None,
    "waited": 0,
    "judged": True,
    "stopped": False,
}
"""Where a run is: the next batch, those that were passed over, the best validation; whether the last state has been
judged by one, and whether that was enough."""

POSITION: dict[str, Any] = {
    "epoch": int,
    "index": int,
    "left_out": list[list[int]],
    "best": float | None,
    "best_step": int | None,
    "waited": int,
    "judged": bool,
    "stopped": bool,
}


def note(position: dict[str, Any], experiment: Experiment, step: int, values: dict[str, float]) -> None:
    """Writes into `position` whether this step is the best, and whether to stop."""
    value = values[experiment.validation.metric]
    sign = -1 if experiment.validation.metric in LOWER_IS_BETTER else 1
    if position["best"] is None or sign * value > sign * position["best"]:
        position.update(best=value, best_step=step, waited=0)
    else:
        position["waited"] += 1
    position["stopped"] = 0 < experiment.validation.patience <= position["waited"]
