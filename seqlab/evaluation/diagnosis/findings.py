"""The findings of a diagnosis, as lines of text."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqlab.evaluation.diagnosis.gradient_check import WRONG
from seqlab.evaluation.diagnosis.gradients import AFTER

DEAD = 0.1  # of a layer's units: a tenth of its width is there for nothing
SATURATED = 0.5  # of a gate's values: it is a switch more often than a gate
RATIO = 1e-3  # of update to parameter, about: CS231n's notes, "Neural Networks Part 3", ratio of weights:updates
AROUND = 10.0  # a ratio that is further from it than by this factor is reported


def findings(diagnosis: Mapping[str, Any]) -> list[str]:
    """A line for each thing that was looked at."""
    lines = []
    finite = np.isfinite(diagnosis["losses"])
    if not finite.all():
        lines.append(f"training: the loss of step {int(finite.argmin()) + 1} is not finite")
    for when, sides in diagnosis["gradients over time"].items():
        for side, reach in sides.items():
            places = f"over {len(reach.norms) - 1} of them x {reach.left:.2g}"
            lines.append(f"gradient, {side}, {when}: x {reach.factor:.3g} a position, {places}: {reach.verdict}")
        if not sides:
            lines.append(f"gradient over time, {when}: not to be told, this model has its embeddings elsewhere")
    layers = diagnosis["activations"][AFTER]
    dead = {name: values["dead"] for name, values in layers.items() if values["dead"] > DEAD}
    lines.append(f"dead units, {AFTER}: {format_list(dead, '{:.0%}') or f'no layer has more than {DEAD:.0%}'}")
    gated = {name: values["saturated"] for name, values in layers.items() if "saturated" in values}
    if gated:
        saturated = {name: share for name, share in gated.items() if share > SATURATED}
        lines.append(
            f"saturated, {AFTER}: {format_list(saturated, '{:.0%}') or f'no gate in more than {SATURATED:.0%}'}"
        )
    # A parameter that begins at zero has no first ratio.
    by_step = {name: steps for name, steps in diagnosis["updates"].items() if np.isfinite(steps[0])}
    ratios = {name: float(np.median(steps[len(steps) // 2 :])) for name, steps in by_step.items()}
    largest = max(by_step, key=lambda name: by_step[name].max())
    lines.append(
        f"updates: {np.median([*ratios.values()]):.1e} of a parameter, where about {RATIO:.0e} is usual; at most "
        f"{by_step[largest].max():.1e}, of {largest} in step {by_step[largest].argmax() + 1}"
    )
    for size, outliers in (
        ("small", {name: ratio for name, ratio in ratios.items() if ratio < RATIO / AROUND}),
        ("large", {name: ratio for name, ratio in ratios.items() if ratio > RATIO * AROUND}),
    ):
        if outliers:
            lines.append(f"{size} updates: {format_list(outliers, '{:.1e}')}")
    worst, error = max(diagnosis["gradient check"].items(), key=lambda item: np.nan_to_num(item[1], nan=np.inf))
    right = "right" if error < WRONG else f"WRONG, {WRONG:.0e} is what kinks can do"
    lines.append(f"gradient check: worst relative error {error:.1e}, of {worst}: {right}")
    test = diagnosis["learning rate"]
    if test["steepest"] is None:
        lines.append("learning rate: the loss falls at none")
    else:
        lines.append(
            f"learning rate: the loss falls steepest at {test['steepest']:.1e}, and up to {test['highest']:.1e}; the "
            f"config's peak is {test['peak of the config']:.1e}"
        )
    return lines


def format_list(values: Mapping[str, float], form: str, limit: int = 5) -> str:
    """The first few, and how many more."""
    parts = [f"{name} {form.format(value)}" for name, value in itertools.islice(values.items(), limit)]
    return ", ".join([*parts, *([f"and {len(values) - limit} more"] if len(values) > limit else [])])
