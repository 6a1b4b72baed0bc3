"""The help texts of the program and its commands."""

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from seqlab.cli.main import run_command

ROOT = Path(__file__).resolve().parents[1]
# The options of these commands depend on their first argument, a config or a dataset.
EXAMPLES = {name: "configs/quickstart.py" for name in ("train", "cost", "diagnose")} | {"prepare": "multi30k/en-de"}


def help_text(*arguments: str) -> str:
    """Returns what `seqlab ARGUMENTS --help` prints on a terminal of 100 columns."""
    output = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "100"}),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
        contextlib.chdir(ROOT),
    ):
        run_command([*arguments, "--help"])
    output.seek(0)
    return output.read()


def command_help(command: str) -> str:
    """Returns the help text of a command, with its example of a first argument if it needs one."""
    return help_text(command, EXAMPLES[command]) if command in EXAMPLES else help_text(command)
