"""What a user is meant to see: the one error, and the end that was asked for."""

import contextlib
from collections.abc import Iterator

STOPPED = 75  # exit code, EX_TEMPFAIL of sysexits.h: stopped as asked, saved, to be started again
RESTORE = "restore it from a backup, or begin anew with another --out"  # of a run's file that is not what it was


class SeqlabError(ValueError):
    """Bad input, told in one line that says what to do. The command prints it and exits with 2."""


class Stopped(BaseException):
    """A signal asked for the end, and what there was to save is saved. The command exits with 75: try again.

    As KeyboardInterrupt, it is none of the errors that whoever is interrupted may catch. `agreed`: all processes stop
    at the same step.
    """

    def __init__(self, message: str, agreed: bool = False):
        super().__init__(message)
        self.agreed = agreed


@contextlib.contextmanager
def advised(what: str) -> Iterator[None]:
    """Adds what to do to the message of a `SeqlabError`."""
    try:
        yield
    except SeqlabError as error:
        raise SeqlabError(f"{error}; {what}") from None


def at_least(name: str, value: int | float, least: int) -> None:
    """Raises for a value that is too small, or no number."""
    if not value >= least:  # NaN too
        raise SeqlabError(f"{name} must be at least {least}, not {value}")
