"""The scalars of a run for TensorBoard."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Events:
    """An event file of TensorBoard. It discards the values of earlier files from `step` on. Values are written
    immediately. Writing ends at an error, which `say` reports.
    """

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]):
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        self.event, self.say, self.writer = Event, say, None
        session = SessionLog(status=SessionLog.START)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = open_events(folder)
            self.writer.write_event(Event(step=step, session_log=session, wall_time=time.time()))
        except OSError as error:
            self.give_up(error)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes the values of a step."""
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
        """Closes the file permanently and reports the error."""
        self.close()
        self.writer = None
        self.say(f"the TensorBoard file cannot be written: {error}; it is abandoned, metrics.jsonl has all values")

    def close(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            with contextlib.suppress(OSError):
                self.writer._py_recordio_writer.close()  # the public close leaves the file open if a flush fails


def open_events(folder: Path) -> Any:
    """Returns the synchronous writer of tensorboardX.

    Its asynchronous writer has a thread that ends at the first error, and the next event then waits forever.
    """
    from tensorboardX.event_file_writer import EventsWriter

    # Its names have whole seconds, so two files of one second would be one.
    return EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")
