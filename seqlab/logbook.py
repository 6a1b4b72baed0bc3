"""What a run writes down: metrics.jsonl, TensorBoard events, a picture of the learning curves.

The log holds nothing that depends on the clock, so a resumed run writes the very lines an uninterrupted one does.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqlab.errors import SeqlabError
from seqlab.files import Journal, read_jsonl
from seqlab.untrusted import inside

LOG = "metrics.jsonl"


class Logbook:
    """Appends to the log of a run, which has a line `every` so many steps; opening it cuts off what was logged after
    `step`, and of that step a validation that is not `judged`, for it is to come again. `say` is told of lines that
    are missing before it, and of a full disk: what that does not take is kept until it does.
    """

    def __init__(self, run: Path, step: int, every: int, say: Callable[[str], None] = print, judged: bool = True):
        def holds(line: dict[str, Any]) -> bool:
            return line["step"] < step or (line["step"] == step and (judged or not is_validation(line)))

        self.say, self.run = say, run
        held = [line for line in read_jsonl(run / LOG) if holds(line)]
        logged = {line["step"] for line in held if not is_validation(line)}
        missing = next((at for at in range(every, step + 1, every) if at not in logged), None)
        if missing is not None:
            say(f"{run / LOG} HAS LOST LINES, the first of them of step {missing}; what comes is added to the rest")
        self.journal = Journal(run / LOG, held)
        self.events = Events(run / "tensorboard", step, say)

    def write(self, step: int, values: dict[str, float], **unlogged: float) -> None:
        """One line; `unlogged` values, such as rates, go to TensorBoard alone."""
        error = self.journal.write({"step": step, **values})
        if error is not None:
            self.say(
                f"{self.run / LOG} CANNOT BE WRITTEN: {error}; its lines are kept, and tried again with the next"
            )
        self.events.write(step, {**values, **unlogged})

    def close(self) -> None:
        """Raises `SeqlabError` for lines that could not be written to the end."""
        self.events.close()
        error = self.journal.close()
        if error is not None:
            raise SeqlabError(f"{self.run / LOG} could not be written to the end: {error}")


class Events:
    """TensorBoard's file of scalars, written at once; on an error it is given up, and `say` told."""

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]):
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        self.event, self.say, self.writer = Event, say, None
        begun = SessionLog(status=SessionLog.START)  # of several files, the steps from here on are this one's
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = open_events(folder)
            self.writer.write_event(Event(step=step + 1, session_log=begun, wall_time=time.time()))
        except OSError as error:
            self.give_up(error)

    def write(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX.summary import scalar

        if self.writer is None:
            return
        try:
            for name, value in values.items():
                self.writer.write_event(self.event(step=step, summary=scalar(name, value), wall_time=time.time()))
            self.writer.flush()
        except OSError as error:
            self.give_up(error)

    def give_up(self, error: OSError) -> None:
        self.close()
        self.writer = None
        self.say(f"TensorBoard's file cannot be written: {error}; it is given up, metrics.jsonl has all")

    def close(self) -> None:
        if self.writer is not None:
            with contextlib.suppress(OSError):
                self.writer._py_recordio_writer.close()  # its own close leaves the file open where a flush fails


def open_events(folder: Path) -> Any:
    """TensorBoard's writer without its thread, which would end at the first error, and have the next event wait for
    ever.
    """
    from tensorboardX.event_file_writer import EventsWriter

    return EventsWriter(str(folder / "events"))


def is_validation(line: dict[str, Any]) -> bool:
    return any(name.startswith("validation ") for name in line)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line that was cut short does not count."""
    return read_jsonl(inside(run, LOG), float)


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
