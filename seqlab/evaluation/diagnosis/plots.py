"""The plots of a diagnosis."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqlab.evaluation.diagnosis.findings import RATIO
from seqlab.evaluation.diagnosis.gradients import AFTER, Reach
from seqlab.evaluation.diagnosis.rates import WINDOW


def draw_gradients(reaches: Mapping[str, Mapping[str, Reach]], path: Path) -> None:
    """Draws a panel for each side: norms by place, at both times."""
    sides = list(dict.fromkeys(side for by_side in reaches.values() for side in by_side))
    figure, axes = panels(max(len(sides), 1), 8.0 if len(sides) < 2 else 5.5, 3.8)
    for axis, side in zip(axes, sides, strict=False):
        for when, by_side in reaches.items():
            label = f"{side}, {when}: x {by_side[side].factor:.3g} per position"
            norms = np.where(by_side[side].norms > 0, by_side[side].norms, np.nan)
            axis.plot(norms, ".-" if len(norms) < 50 else "-", linewidth=1, label=label)
        axis.set(title=f"gradient in the {side}", yscale="log", ylabel="norm of d loss / d input")
        axis.set_xlabel("position" if side == "encoder's source" else "positions back from the last target")
        axis.xaxis.get_major_locator().set_params(integer=True)
    if not sides:
        axes[0].set_title("embeddings not found")
    finish(figure, axes, path)


def draw_activations(statistics: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> None:
    """Draws a line for each layer, the first on top: the size of its output, and the dead and saturated shares."""
    from matplotlib.ticker import LogLocator

    names = list(statistics[AFTER])
    figure, (sizes, shares) = panels(2, 5.0, 1.4 + 0.17 * len(names), sharey=True)
    rows = np.arange(len(names))
    for (when, layers), filled in zip(statistics.items(), ("none", "full"), strict=True):
        style: dict[str, Any] = {"linestyle": "none", "fillstyle": filled, "markersize": 5}
        sizes.plot([layers[name]["rms"] or np.nan for name in names], rows, "o", color="C0", label=when, **style)
        shares.plot([layers[name]["dead"] for name in names], rows, "o", color="C3", label=f"dead, {when}", **style)
        gated = [i for i, name in enumerate(names) if "saturated" in layers[name]]
        if gated:
            saturated = [layers[names[i]]["saturated"] for i in gated]
            shares.plot(saturated, gated, "s", color="C2", label=f"saturated, {when}", **style)
    sizes.set_yticks(rows, names, fontsize=7)
    sizes.set(xscale="log", xlabel="root mean square", title="activations", ylim=(len(names) - 0.5, -0.5))
    low, high = sizes.get_xlim()
    sizes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    sizes.xaxis.set_major_formatter("{x:g}")
    sizes.minorticks_off()
    shares.set(xlim=(-0.05, 1.05), xlabel="share of units (dead) or values (saturated)", title="dead and saturated")
    finish(figure, [sizes, shares], path)


def draw_updates(ratios: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws a line for each parameter and a column for each step. Gray is the usual size, white a zero parameter."""
    figure, (axis,) = panels(1, 9.0, 1.4 + 0.15 * len(ratios))
    values = np.array(list(ratios.values()))
    with np.errstate(divide="ignore"):
        values = np.log10(np.where(np.isfinite(values), values, np.nan))
    usual = math.log10(RATIO)
    extent = (0.5, values.shape[1] + 0.5, len(ratios) - 0.5, -0.5)
    image = axis.imshow(
        values, aspect="auto", interpolation="nearest", cmap="coolwarm", vmin=usual - 2, vmax=usual + 2, extent=extent
    )
    axis.set_yticks(np.arange(len(ratios)), list(ratios), fontsize=7)
    axis.set(xlabel="step", title="norm of the update over norm of the parameter")
    figure.colorbar(image, label="log10 of the ratio", shrink=min(1.0, 20 / len(ratios)))
    finish(figure, [], path)


def draw_rates(test: Mapping[str, Any], path: Path) -> None:
    """Draws the loss over the rate, and the suggested rates."""
    figure, (axis,) = panels(1, 8.0, 4.0)
    rates, smoothed = test["rates"], test["smoothed"]
    axis.plot(rates, test["losses"], ".", color="0.75", label="loss of a batch")
    axis.plot(rates[: len(smoothed)], smoothed, color="C0", label=f"mean of {WINDOW}")
    for name, color, line in (("steepest", "C2", "-"), ("highest", "C1", "-"), ("peak of the config", "C3", "--")):
        if test[name] is not None:
            axis.axvline(test[name], color=color, linestyle=line, label=f"{name}: {test[name]:.1e}")
    if len(smoothed):
        room = 0.15 * (smoothed[0] - smoothed.min()) + 1e-9
        axis.set_ylim(smoothed.min() - room, smoothed[0] + 5 * room)
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", title="learning-rate range test")
    finish(figure, [axis], path)


def panels(count: int, width: float, height: float, **subplot_options: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(count * width, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, **subplot_options)[0]


def finish(figure: Any, axes: Any, path: Path) -> None:
    """Adds a legend above all panels and saves the figure."""
    for axis in axes:
        axis.grid(alpha=0.3)
    if any(axis.get_legend_handles_labels()[0] for axis in axes):
        figure.legend(loc="outside upper center", fontsize=8, ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
