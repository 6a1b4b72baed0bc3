"""The log of a run: metrics.jsonl and the same values for TensorBoard.

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

    Opening it removes the lines after `step`. It also removes the validation at `step` unless the state is `judged`,
    since that validation is repeated. Lines that cannot be written, for example on a full disk, are written later.
    `say` reports such errors, and lines that are missing before `step`.
    """

    def __init__(self, run: Path, step: int, log_every: int, say: Callable[[str], None] = print, judged: bool = True):
        def is_kept(line: dict[str, Any]) -> bool:
            return line["step"] < step or (line["step"] == step and (judged or not is_validation(line)))

        self.say, self.run = say, run
        lines = [line for line in read_jsonl(run / LOG) if is_kept(line)]
        logged = {line["step"] for line in lines if not is_validation(line)}
        missing = next((due for due in range(log_every, step + 1, log_every) if due not in logged), None)
        if missing is not None:
            say(f"{run / LOG} HAS LOST LINES, the first at step {missing}; new lines are appended")
        self.journal = Journal(run / LOG, lines)
        self.events = Events(run / "tensorboard", step + 1 if judged else step, say)
        if not judged:  # TensorBoard discards all values of the step; those that are not in the log are lost
            for line in lines:
                if line["step"] == step:
                    self.events.write(step, {name: value for name, value in line.items() if name != "step"})

    def write(self, step: int, values: dict[str, float], **unlogged: float) -> None:
        """Writes one line. `unlogged` values, such as speeds, go only to TensorBoard."""
        error = self.journal.write({"step": step, **values})
        if error is not None:
            self.say(f"{self.run / LOG} CANNOT BE WRITTEN: {error}; its lines will be retried with the next line")
        self.events.write(step, {**values, **unlogged})

    def close(self) -> None:
        """Closes the log. Raises `SeqlabError` if some lines could not be written."""
        self.events.close()
        error = self.journal.close()
        if error is not None:
            raise SeqlabError(f"{self.run / LOG} could not be written completely: {error}")


def is_validation(line: dict[str, Any]) -> bool:
    """Returns whether a line of the log belongs to a validation."""
    return any(name.startswith("validation ") for name in line)


def read_log(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of the log of a run. An incomplete last line is ignored."""
    return read_jsonl(resolve_inside(run, LOG), float)
