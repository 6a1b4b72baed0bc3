"""Requests to stop, by SIGTERM or SIGINT. Work that must not be interrupted is finished first."""

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
RETRY_DELAY = 0.01  # seconds until `Stopped` is raised again if Python dropped it


class StopRequest:
    """The state of a stop request.

    While `deferred`, the first signal is only recorded. Otherwise, and at the second signal, `Stopped` is raised
    immediately. While `Stopped` is being raised, further signals have no effect.
    """

    requested = False
    """Whether a signal has arrived."""
    deferred = False
    """Whether the first signal is only recorded."""
    stopping = False
    """Whether `Stopped` has been raised."""

    @contextlib.contextmanager
    def deferral(self, deferred: bool = True) -> Iterator[None]:
        """Sets `deferred` for a block. If it is False, raises `Stopped` first if a stop has been requested."""
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
                "stopped immediately by a signal, without saving: run the same command to resume from the last "
                "checkpoint, or to start again if there is none"
            )


def record_signals() -> None:
    """Records signals until the end of the process, for `listen_for_stop` to handle.

    Nothing is raised during imports or while the interpreter shuts down.
    """
    stop_request = StopRequest()
    for number in STOP_SIGNALS:
        signal.signal(number, stop_request.record_signal)
        atexit.register(signal.signal, number, signal.SIG_IGN)  # else a signal kills the interpreter during shutdown


@contextlib.contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Handles the signals during the block, and a signal that was recorded before it.

    Only the main thread can handle signals. In other threads a stop is never requested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    handlers = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGALRM)}
    owner = getattr(handlers[signal.SIGTERM], "__self__", None)
    stop_request = owner if isinstance(owner, StopRequest) else StopRequest()
    previous_hook = sys.unraisablehook

    def raise_again(unraisable: Any) -> None:
        """Raises `Stopped` again, because Python drops exceptions raised in garbage collection or a C callback."""
        # The default action of SIGALRM ends the process, so the timer is set only while it is handled here.
        handled = signal.getsignal(signal.SIGALRM) == stop_request.handle_signal
        if isinstance(unraisable.exc_value, Stopped) and handled:
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
        sys.unraisablehook = previous_hook  # first, so that nothing sets the timer again
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
