"""The `seqlab` command in the process of the tests."""

import os
import sys
from pathlib import Path

from seqlab import cli


def call(folder: Path, *arguments: str, stdin: str | None = None) -> int:
    """The command in this process; its exit code."""
    here, old, old_in = os.getcwd(), sys.argv, sys.stdin
    os.chdir(folder)
    sys.argv = ["seqlab", *arguments]
    try:
        if stdin is not None:
            path = folder / "stdin"
            path.write_text(stdin, encoding="utf-8")
            sys.stdin = path.open(encoding="utf-8")
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        os.chdir(here)
        if sys.stdin is not old_in:
            sys.stdin.close()
        sys.argv, sys.stdin = old, old_in
    return 0
