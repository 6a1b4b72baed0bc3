"""SIGTERM and SIGINT: work comes to a good end first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from seqlab.errors import Stopped


class Wish:
    """Whether the end has been asked for. While `patient` a first signal is noted here and no more; otherwise, and at
    the second, `Stopped` is raised on the spot.
    """

    asked = False
    patient = False

    @contextlib.contextmanager
    def patience(self, patient: bool = True) -> Iterator[None]:
        before, self.patient = self.patient, patient
        try:
            if not patient:
                self.end_if_asked()
            yield
        finally:
            self.patient = before

    def hear(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not self.patient:
            self.end_if_asked()

    def end_if_asked(self) -> None:
        if self.asked:
            raise Stopped("stopped by a signal")


@contextlib.contextmanager
def wish_to_stop() -> Iterator[Wish]:
    """Hears the signals while the block runs, if this is the main thread, which alone can."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.signal(number, wish.hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
