"""The errors that users see, and the exception that stops a program on request."""

import contextlib
from collections.abc import Iterator

EXIT_STOPPED = 75  # exit code, EX_TEMPFAIL of sysexits.h: stopped on request; the same command resumes
RESTORE = "restore it from a backup, or start a new run with another --out"  # advice about a damaged file of a run


class SeqlabError(ValueError):
    """An error that the user can fix. Its one-line message says how. The command prints it and exits with 2."""


class DamagedCache(SeqlabError):
    """A cache has content that seqlab did not write."""


class Stopped(BaseException):
    """A request to stop, by a signal. The message says whether the state was saved. The command exits with 75, and
    running it again resumes.

    Like KeyboardInterrupt, it is not an `Exception`, so that interrupted code does not catch it. `agreed`: all
    processes stop at the same step.
    """

    def __init__(self, message: str, agreed: bool = False):
        super().__init__(message)
        self.agreed = agreed


@contextlib.contextmanager
def with_advice(advice: str) -> Iterator[None]:
    """Appends advice to the message of a `SeqlabError`."""
    try:
        yield
    except SeqlabError as error:
        raise SeqlabError(f"{error}; {advice}") from None
