"""Requests to stop, by SIGTERM or SIGINT: work that must not be cut short is finished first."""

import atexit
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from seqlab.system.errors import Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
RETRY_DELAY = 0.01  # seconds until `Stopped` is raised again, where Python could not let it through


class StopRequest:
    """Whether a signal has requested a stop.

    While `deferred`, the first signal is recorded here and nothing else. Otherwise, and at the second signal,
    `Stopped` is raised at once. While `Stopped` is being raised, further signals change nothing.
    """

    requested = False
    """Whether a signal has arrived."""
    deferred = False
    """Whether the first signal is only recorded."""
    stopping = False
    """Whether `Stopped` has been raised."""

    @contextlib.contextmanager
    def deferral(self, deferred: bool = True) -> Iterator[None]:
        """Sets `deferred` for a block. A block that may be interrupted does not begin once a stop is requested."""
        before, self.deferred = self.deferred, deferred
        try:
            if not deferred:
                self.raise_if_requested()
            yield
        finally:
            self.deferred = before

    def record_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal handler of `record_signals`."""
        self.requested = True

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal handler of `listen_for_stop`."""
        repeated, self.requested = self.requested, True
        if (repeated or not self.deferred) and not self.stopping:
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raises `Stopped` if a signal has arrived."""
        if self.requested:
            self.stopping = True
            raise Stopped(
                "stopped by a signal at once, nothing more is saved: the same command goes on from the last "
                "checkpoint, or begins anew if there is none"
            )


def record_signals() -> None:
    """Records signals from now to the end of the process, for `listen_for_stop` to find.

    Nothing is raised during imports, nor while the interpreter shuts down.
    """
    stop_request = StopRequest()
    for number in STOP_SIGNALS:
        signal.signal(number, stop_request.record_signal)
        atexit.register(signal.signal, number, signal.SIG_IGN)  # or a signal kills the interpreter at its end


@contextlib.contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Handles the signals while the block runs, and a signal that was recorded before it.

    Only the main thread can handle signals: in other threads the request stays unset.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    handlers = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGALRM)}
    owner = getattr(handlers[signal.SIGTERM], "__self__", None)
    stop_request = owner if isinstance(owner, StopRequest) else StopRequest()
    previous_hook = sys.unraisablehook

    def raise_again(unraisable: Any) -> None:
        """Raises `Stopped` again: Python drops what is raised in a garbage collection or a callback from C."""
        if isinstance(unraisable.exc_value, Stopped):
            stop_request.stopping = False
            signal.setitimer(signal.ITIMER_REAL, RETRY_DELAY)
        else:
            previous_hook(unraisable)

    try:
        sys.unraisablehook = raise_again
        for number in handlers:
            signal.signal(number, stop_request.handle_signal)
        stop_request.raise_if_requested()
        yield stop_request
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = previous_hook
