"""The `seqlab` command. Slow libraries are imported inside the commands that need them."""

import difflib
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from seqlab import __version__
from seqlab.cli.checking import check, cost, diagnose
from seqlab.cli.completion import completion_script
from seqlab.cli.compression import distill, merge, prune, quantize
from seqlab.cli.decoding import decode, logprob, predict
from seqlab.cli.doctor import doctor
from seqlab.cli.embedding import embed
from seqlab.cli.evaluation import analyze, compare, evaluate, score
from seqlab.cli.inspection import inspect, report, show_batch
from seqlab.cli.interop import export, import_run
from seqlab.cli.new import new
from seqlab.cli.parsing import run_parsed
from seqlab.cli.parts import list_parts
from seqlab.cli.runs import average, bisect, cache, fingerprint, list_runs, migrate
from seqlab.cli.training import launch, prepare, train
from seqlab.system.errors import EXIT_STOPPED, SeqlabError, Stopped
from seqlab.system.signals import record_signals


def completion(
    shell: Annotated[Positional[Literal["bash", "zsh"]], arg(metavar="SHELL", help="Shell: bash or zsh.")],
) -> None:
    """Print a script that completes commands and options in a shell.

    Example: eval "$(seqlab completion bash)"
    """
    print(completion_script(shell, COMMANDS, WITH_FIRST_ARGUMENT), end="")


GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Train": {
        "train": train,
        "launch": launch,
        "prepare": prepare,
        "distill": distill,
        "show-batch": show_batch,
    },
    "Decode and score": {
        "decode": decode,
        "predict": predict,
        "embed": embed,
        "logprob": logprob,
        "evaluate": evaluate,
        "score": score,
        "compare": compare,
    },
    "Understand": {
        "inspect": inspect,
        "analyze": analyze,
        "report": report,
        "check": check,
        "cost": cost,
        "diagnose": diagnose,
    },
    "Manage": {
        "list": list_parts,
        "new": new,
        "runs": list_runs,
        "average": average,
        "merge": merge,
        "prune": prune,
        "quantize": quantize,
        "fingerprint": fingerprint,
        "bisect": bisect,
        "migrate": migrate,
        "cache": cache,
        "doctor": doctor,
        "completion": completion,
    },
    "Exchange": {
        "import": import_run,
        "export": export,
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
RENAMED = {"force": "logprob"}
# The first argument of these commands is read first, because the options depend on it.
WITH_FIRST_ARGUMENT = ("train", "launch", "prepare", "cost", "diagnose")


def main() -> None:
    """Runs a command. The exit code is 2 for invalid input, with one line on standard error; 75 for a training that
    was asked to stop; and 130 for any other interrupt.
    """
    if sys.argv[1:2] == ["train"]:
        record_signals()  # before the imports, which take seconds
    open_standard_streams()
    code, at_once = 0, False
    try:
        run_command(sys.argv[1:])
        sys.stdout.flush()  # here, where a closed pipe is handled
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: exit quietly
    except (SeqlabError, OSError) as error:  # OSError: a full disk, for example
        print(f"seqlab: {error}", file=sys.stderr)
        code, at_once = 2, True
    except Stopped as stopped:
        print(f"seqlab: {stopped}", file=sys.stderr)
        code, at_once = EXIT_STOPPED, not stopped.agreed
    except KeyboardInterrupt:
        print("seqlab: interrupted", file=sys.stderr)
        code, at_once = 130, True
    except Exception:
        if not connected():
            raise
        traceback.print_exc()
        code, at_once = 1, True
    # A normal exit would wait for the other processes, which may never exit. JAX may also crash there if it was
    # interrupted while it compiled.
    if at_once and (connected() or code == EXIT_STOPPED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def open_standard_streams() -> None:
    """Makes standard streams UTF-8 in every locale, and opens closed ones on the null device."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape" if name == "stdin" else "backslashreplace")


def connected() -> bool:
    """Whether this process is one of several."""
    return "seqlab.distributed.hosts" in sys.modules and sys.modules["seqlab.distributed.hosts"].connected()


def run_command(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
    elif arguments[0] == "--version":
        print(f"seqlab {__version__}")
    elif arguments[0] in RENAMED:
        raise SeqlabError(f"seqlab {arguments[0]} has been renamed: use seqlab {RENAMED[arguments[0]]}")
    elif arguments[0] not in COMMANDS:
        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise SeqlabError(f"no command {arguments[0]!r}: {hint}")
    elif arguments[0] in WITH_FIRST_ARGUMENT:
        COMMANDS[arguments[0]](arguments[1:])
    else:
        run_parsed(COMMANDS[arguments[0]], f"seqlab {arguments[0]}", arguments[1:])


def help_text() -> str:
    lines = ["usage: seqlab COMMAND ...", "", "Train, decode and evaluate sequence models."]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:12} {(command.__doc__ or '').split(chr(10))[0]}" for name, command in commands.items()]
    return "\n".join([*lines, "", "seqlab COMMAND --help describes a command. seqlab --version prints the version."])
