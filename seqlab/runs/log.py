"""The log of a run: metrics.jsonl, and the same values for TensorBoard.

No value in metrics.jsonl depends on the clock, so that a resumed run writes the same lines as an uninterrupted one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqlab.runs.tensorboard import Events
from seqlab.system.errors import SeqlabError
from seqlab.system.files import Journal, read_jsonl
from seqlab.system.untrusted import resolve_inside

LOG = "metrics.jsonl"


class Logbook:
    """Appends to the log of a run, which has a line every `log_every` steps.

    Opening it removes the lines after `step`, and the validation of `step` unless the state is `judged`, since that
    validation is repeated. `say` reports lines that are missing before `step`, and a full disk: lines that cannot be
    written are kept and written later.
    """

    def __init__(self, run: Path, step: int, log_every: int, say: Callable[[str], None] = print, judged: bool = True):
        def is_kept(line: dict[str, Any]) -> bool:
            return line["step"] < step or (line["step"] == step and (judged or not is_validation(line)))

        self.say, self.run = say, run
        lines = [line for line in read_jsonl(run / LOG) if is_kept(line)]
        logged = {line["step"] for line in lines if not is_validation(line)}
        missing = next((due for due in range(log_every, step + 1, log_every) if due not in logged), None)
        if missing is not None:
            say(f"{run / LOG} HAS LOST LINES, the first of step {missing}; new lines are appended")
        self.journal = Journal(run / LOG, lines)
        self.events = Events(run / "tensorboard", step, say)

    def write(self, step: int, values: dict[str, float], **unlogged: float) -> None:
        """Writes one line. `unlogged` values, such as rates, go to TensorBoard alone."""
        error = self.journal.write({"step": step, **values})
        if error is not None:
            self.say(
                f"{self.run / LOG} CANNOT BE WRITTEN: {error}; its lines are kept, and tried again with the next"
            )
        self.events.write(step, {**values, **unlogged})

    def close(self) -> None:
        """Closes the log. Raises `SeqlabError` if there are lines that could not be written."""
        self.events.close()
        error = self.journal.close()
        if error is not None:
            raise SeqlabError(f"{self.run / LOG} could not be written to the end: {error}")


def is_validation(line: dict[str, Any]) -> bool:
    """Returns whether a line of the log is of a validation."""
    return any(name.startswith("validation ") for name in line)


def read_log(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of the log of a run. A last line that was cut short does not count."""
    return read_jsonl(resolve_inside(run, LOG), float)
