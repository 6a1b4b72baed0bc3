"""The error that users see, and the exception that stops a program on request."""

import contextlib
from collections.abc import Iterator

EXIT_STOPPED = 75  # exit code, EX_TEMPFAIL of sysexits.h: stopped on request, saved, to be started again
RESTORE = "restore it from a backup, or begin anew with another --out"  # for a file of a run that has changed


class SeqlabError(ValueError):
    """Bad input, described in one line that says what to do. The command prints it and exits with 2."""


class DamagedCache(SeqlabError):
    """A cache holds what seqlab did not write."""


class Stopped(BaseException):
    """A signal asked this process to stop. The message says whether the state was saved. The command exits with 75:
    run it again.

    Like KeyboardInterrupt, it is not an `Exception`, so that code that is interrupted does not catch it. `agreed`:
    all processes stop at the same step.
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
