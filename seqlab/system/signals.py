"""SIGTERM and SIGINT: work comes to a good end first."""

import atexit
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from seqlab.system.errors import Stopped

BOTH = (signal.SIGTERM, signal.SIGINT)
MOMENT = 0.01  # seconds until `Stopped` is raised anew, where it could not come through


class Wish:
    """Whether the end has been asked for. While `patient` a first signal is noted here and no more; otherwise, and at
    the second, `Stopped` is raised on the spot; once it is on its way, others change nothing.
    """

    asked = False
    patient = False
    ending = False

    @contextlib.contextmanager
    def patience(self, patient: bool = True) -> Iterator[None]:
        before, self.patient = self.patient, patient
        try:
            if not patient:
                self.end_if_asked()
            yield
        finally:
            self.patient = before

    def note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def hear(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if (again or not self.patient) and not self.ending:
            self.end_if_asked()

    def end_if_asked(self) -> None:
        if self.asked:
            self.ending = True
            raise Stopped(
                "stopped by a signal at once, nothing more is saved: the same command goes on from the last "
                "checkpoint, or begins anew if there is none"
            )


def note_signals() -> None:
    """From here to the end of the process signals are noted at least, for `wish_to_stop` to find: nothing is raised
    into imports, nor into the last words.
    """
    wish = Wish()
    for number in BOTH:
        signal.signal(number, wish.note)
        atexit.register(signal.signal, number, signal.SIG_IGN)  # or the interpreter, at its end, lets them kill


@contextlib.contextmanager
def wish_to_stop() -> Iterator[Wish]:
    """Hears the signals while the block runs, if this is the main thread, which alone can; also one that has been
    noted before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Wish()
        return
    before = {number: signal.getsignal(number) for number in (*BOTH, signal.SIGALRM)}
    owner = getattr(before[signal.SIGTERM], "__self__", None)
    wish = owner if isinstance(owner, Wish) else Wish()
    otherwise = sys.unraisablehook

    def again(unraisable: Any) -> None:
        """Python drops what is raised in the midst of a garbage collection or a callback from C: raised anew."""
        if isinstance(unraisable.exc_value, Stopped):
            wish.ending = False
            signal.setitimer(signal.ITIMER_REAL, MOMENT)
        else:
            otherwise(unraisable)

    try:
        sys.unraisablehook = again
        for number in before:
            signal.signal(number, wish.hear)
        wish.end_if_asked()
        yield wish
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = otherwise
