"""What a run writes down: metrics.jsonl, TensorBoard events, a picture of the learning curves.

The log holds nothing that depends on the clock, so a resumed run writes the very lines an uninterrupted one does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqlab.runs.events import Events
from seqlab.system.errors import SeqlabError
from seqlab.system.files import Journal, read_jsonl
from seqlab.system.untrusted import inside

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


def is_validation(line: dict[str, Any]) -> bool:
    return any(name.startswith("validation ") for name in line)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line that was cut short does not count."""
    return read_jsonl(inside(run, LOG), float)
