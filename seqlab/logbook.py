"""What a run writes down: metrics.jsonl, TensorBoard events, a picture of the learning curves.

The log holds nothing that depends on the clock, so a resumed run writes the very lines an uninterrupted one does.
"""

import json
from pathlib import Path
from typing import Any

from seqlab.files import write_atomically


class Logbook:
    """Appends to the log of a run; opening it cuts off what was logged after `step`."""

    def __init__(self, run: Path, step: int):
        from tensorboardX import SummaryWriter

        self.path = run / "metrics.jsonl"
        kept = [line for line in read_log(run) if line["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.stream = self.path.open("a", encoding="utf-8")
        self.events = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float], **unlogged: float) -> None:
        """One line; `unlogged` values, such as rates, go to TensorBoard alone."""
        self.stream.write(json.dumps({"step": step, **values}) + "\n")
        self.stream.flush()
        for name, value in {**values, **unlogged}.items():
            self.events.add_scalar(name, value, step)

    def close(self) -> None:
        self.stream.close()
        self.events.close()


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line that was cut short does not count."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw_curves(run: Path) -> None:
    """RUN/curve.png: training and validation loss, and every other validation score, over the steps."""
    from matplotlib.figure import Figure

    lines = read_log(run)
    scores = [n for n in dict.fromkeys(n for line in lines for n in line) if n.startswith("validation ")]
    others = [n for n in scores if n not in ("validation loss", "validation perplexity")]
    figure = Figure(figsize=(4.5 * (1 + len(others)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(others), squeeze=False)[0]
    for axis, names in zip(axes, [("loss", "validation loss"), *((n,) for n in others)], strict=True):
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            axis.plot(*zip(*points, strict=True), label=name) if points else None
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(loc="upper right")
    figure.savefig(run / "curve.png", dpi=120)
