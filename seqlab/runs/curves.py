"""A plot of the learning curves of a run."""

from pathlib import Path

from seqlab.runs.log import read_log


def draw_curves(run: Path) -> None:
    """Writes RUN/curve.png, which plots the training and validation losses and the validation scores by step."""
    from matplotlib.figure import Figure

    lines = read_log(run)
    scores = [n for n in dict.fromkeys(n for line in lines for n in line) if n.startswith("validation ")]
    metrics = [n for n in scores if n not in ("validation loss", "validation perplexity")]
    figure = Figure(figsize=(4.5 * (1 + len(metrics)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
    for axis, names in zip(axes, [("loss", "validation loss"), *((n,) for n in metrics)], strict=True):
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            axis.plot(*zip(*points, strict=True), label=name) if points else None
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(loc="upper right")
    figure.savefig(run / "curve.png", dpi=120)
