"""Parsing of arguments, by tyro."""

import contextlib
import functools
import io
import sys
from collections.abc import Callable
from typing import Any

import tyro

from seqlab.system.errors import SeqlabError


def run_parsed(command: Callable[..., None], prog: str, arguments: list[str]) -> None:
    """Calls a command with its arguments. Raises `SeqlabError` for a value that a part of an experiment refuses,
    which tyro would print in a box.
    """

    @functools.wraps(command)
    def bind(*args: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **options)

    output = TerminalText()
    try:
        with contextlib.redirect_stderr(output):
            call = tyro.cli(bind, prog=prog, args=arguments)
    except SystemExit as stop:
        error = cause_of(stop)
        if error is not None:
            raise error from None
        sys.stderr.write(output.getvalue())
        raise
    sys.stderr.write(output.getvalue())
    call()


class TerminalText(io.StringIO):
    """Buffered standard error, with the colors that a terminal gets."""

    def isatty(self) -> bool:
        return sys.__stderr__ is not None and sys.__stderr__.isatty()


def cause_of(error: BaseException | None) -> SeqlabError | None:
    """Returns the `SeqlabError` that caused an exception, or None."""
    while error is not None and not isinstance(error, SeqlabError):
        error = error.__context__
    return error
