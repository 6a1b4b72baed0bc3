"""The findings of a diagnosis, as lines of text."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqlab.evaluation.diagnosis.gradient_check import WRONG
from seqlab.evaluation.diagnosis.gradients import AFTER

DEAD = 0.1  # share of dead units in a layer that is reported
SATURATED = 0.5  # share of saturated values of a gate that is reported
RATIO = 1e-3  # usual ratio of update to parameter: CS231n notes, "Neural Networks Part 3", ratio of weights:updates
AROUND = 10.0  # a ratio that differs by more than this factor is reported


def findings(diagnosis: Mapping[str, Any]) -> list[str]:
    """Returns one line for each check."""
    lines = []
    finite = np.isfinite(diagnosis["losses"])
    if not finite.all():
        lines.append(f"training: the loss of step {int(finite.argmin()) + 1} is not finite")
    for when, sides in diagnosis["gradients over time"].items():
        for side, reach in sides.items():
            places = f"over {len(reach.norms) - 1} of them x {reach.left:.2g}"
            lines.append(f"gradient, {side}, {when}: x {reach.factor:.3g} per position, {places}: {reach.verdict}")
        if not sides:
            lines.append(f"gradient over time, {when}: unknown, the embeddings of this model are not found")
    layers = diagnosis["activations"][AFTER]
    dead = {name: values["dead"] for name, values in layers.items() if values["dead"] > DEAD}
    lines.append(f"dead units, {AFTER}: {format_list(dead, '{:.0%}') or f'at most {DEAD:.0%} in each layer'}")
    gated = {name: values["saturated"] for name, values in layers.items() if "saturated" in values}
    if gated:
        saturated = {name: share for name, share in gated.items() if share > SATURATED}
        lines.append(
            f"saturated, {AFTER}: {format_list(saturated, '{:.0%}') or f'at most {SATURATED:.0%} in each gate'}"
        )
    # A parameter that starts at zero has no first ratio.
    by_step = {name: steps for name, steps in diagnosis["updates"].items() if np.isfinite(steps[0])}
    ratios = {name: float(np.median(steps[len(steps) // 2 :])) for name, steps in by_step.items()}
    largest = max(by_step, key=lambda name: by_step[name].max())
    lines.append(
        f"updates: {np.median([*ratios.values()]):.1e} relative to the parameter (usual: about {RATIO:.0e}); at most "
        f"{by_step[largest].max():.1e}, of {largest} in step {by_step[largest].argmax() + 1}"
    )
    for size, outliers in (
        ("small", {name: ratio for name, ratio in ratios.items() if ratio < RATIO / AROUND}),
        ("large", {name: ratio for name, ratio in ratios.items() if ratio > RATIO * AROUND}),
    ):
        if outliers:
            lines.append(f"{size} updates: {format_list(outliers, '{:.1e}')}")
    worst, error = max(diagnosis["gradient check"].items(), key=lambda item: np.nan_to_num(item[1], nan=np.inf))
    right = "correct" if error < WRONG else f"WRONG, kinks explain at most {WRONG:.0e}"
    lines.append(f"gradient check: worst relative error {error:.1e}, of {worst}: {right}")
    test = diagnosis["learning rate"]
    if test["steepest"] is None:
        lines.append("learning rate: the loss falls at no rate")
    else:
        lines.append(
            f"learning rate: the loss falls most steeply at {test['steepest']:.1e}, and until {test['highest']:.1e}; "
            f"the config's peak is {test['peak of the config']:.1e}"
        )
    return lines


def format_list(values: Mapping[str, float], form: str, limit: int = 5) -> str:
    """Returns the first few values, and the number of others."""
    parts = [f"{name} {form.format(value)}" for name, value in itertools.islice(values.items(), limit)]
    return ", ".join([*parts, *([f"and {len(values) - limit} more"] if len(values) > limit else [])])
