"""TODO evaluation.diagnosis.findings."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqlab.evaluation.diagnosis.gradient_check import WRONG
from seqlab.evaluation.diagnosis.gradients import AFTER

DEAD = 0.1  # of a layer's units: a tenth of its width is there for nothing

SATURATED = 0.5  # of a gate's values: it is a switch more often than a gate

RATIO = 1e-3  # of update to parameter, about: CS231n's notes, "Neural Networks Part 3", ratio of weights:updates

AROUND = 10.0  # a ratio that is further from it than by this factor is told


# What is told
def findings(found: Mapping[str, Any]) -> list[str]:
    """A line for each thing that was looked at."""
    lines = []
    finite = np.isfinite(found["losses"])
    if not finite.all():
        lines.append(f"training: the loss of step {int(finite.argmin()) + 1} is not finite")
    for when, sides in found["gradients over time"].items():
        for side, one in sides.items():
            places = f"over {len(one.norms) - 1} of them x {one.left:.2g}"
            lines.append(f"gradient, {side}, {when}: x {one.factor:.3g} a position, {places}: {one.verdict}")
        if not sides:
            lines.append(f"gradient over time, {when}: not to be told, this model has its embeddings elsewhere")
    layers = found["activations"][AFTER]
    dead = {name: one["dead"] for name, one in layers.items() if one["dead"] > DEAD}
    lines.append(f"dead units, {AFTER}: {listed(dead, '{:.0%}') or f'no layer has more than {DEAD:.0%}'}")
    gated = {name: one["saturated"] for name, one in layers.items() if "saturated" in one}
    if gated:
        saturated = {name: share for name, share in gated.items() if share > SATURATED}
        lines.append(f"saturated, {AFTER}: {listed(saturated, '{:.0%}') or f'no gate in more than {SATURATED:.0%}'}")
    by_step = {name: one for name, one in found["updates"].items() if np.isfinite(one[0])}  # others begin at zero
    ratios = {name: float(np.median(one[len(one) // 2 :])) for name, one in by_step.items()}
    largest = max(by_step, key=lambda name: by_step[name].max())
    lines.append(
        f"updates: {np.median([*ratios.values()]):.1e} of a parameter, where about {RATIO:.0e} is usual; at most "
        f"{by_step[largest].max():.1e}, of {largest} in step {by_step[largest].argmax() + 1}"
    )
    for what, far in (
        ("small", {name: ratio for name, ratio in ratios.items() if ratio < RATIO / AROUND}),
        ("large", {name: ratio for name, ratio in ratios.items() if ratio > RATIO * AROUND}),
    ):
        if far:
            lines.append(f"{what} updates: {listed(far, '{:.1e}')}")
    worst, error = max(found["gradient check"].items(), key=lambda one: np.nan_to_num(one[1], nan=np.inf))
    right = "right" if error < WRONG else f"WRONG, {WRONG:.0e} is what kinks can do"
    lines.append(f"gradient check: worst relative error {error:.1e}, of {worst}: {right}")
    test = found["learning rate"]
    if test["steepest"] is None:
        lines.append("learning rate: the loss falls at none")
    else:
        lines.append(
            f"learning rate: the loss falls steepest at {test['steepest']:.1e}, and up to {test['highest']:.1e}; the "
            f"config's peak is {test['peak of the config']:.1e}"
        )
    return lines


def listed(values: Mapping[str, float], form: str, most: int = 5) -> str:
    """The first few, and how many more."""
    shown = [f"{name} {form.format(value)}" for name, value in itertools.islice(values.items(), most)]
    return ", ".join([*shown, *([f"and {len(values) - most} more"] if len(values) > most else [])])
