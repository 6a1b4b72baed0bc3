"""The scalars of a run for TensorBoard."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Events:
    """TensorBoard's file of scalars. Each value is written at once; after an error, which `say` reports, none is."""

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]):
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        self.event, self.say, self.writer = Event, say, None
        session = SessionLog(status=SessionLog.START)  # from here on, the steps of earlier files do not count
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = open_events(folder)
            self.writer.write_event(Event(step=step + 1, session_log=session, wall_time=time.time()))
        except OSError as error:
            self.give_up(error)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes some values of a step."""
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
        """Closes the file for good, and reports the error."""
        self.close()
        self.writer = None
        self.say(f"TensorBoard's file cannot be written: {error}; it is given up, metrics.jsonl has all")

    def close(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            with contextlib.suppress(OSError):
                self.writer._py_recordio_writer.close()  # its own close leaves the file open where a flush fails


def open_events(folder: Path) -> Any:
    """Returns TensorBoard's writer without its thread.

    The thread ends at the first error, and the next event then waits for ever.
    """
    from tensorboardX.event_file_writer import EventsWriter

    return EventsWriter(str(folder / "events"))
