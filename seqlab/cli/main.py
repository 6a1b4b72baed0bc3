"""The `seqlab` command. What takes long to import is imported inside the commands."""

import os
import sys
import traceback

from seqlab.cli.checking import check, cost, diagnose
from seqlab.cli.decoding import decode, logprob, predict
from seqlab.cli.evaluation import analyze, compare, evaluate, score
from seqlab.cli.inspection import inspect, report, show_batch
from seqlab.cli.interop import export, import_run
from seqlab.cli.parsing import run_parsed
from seqlab.cli.parts import list_parts
from seqlab.cli.runs import average, bisect, cache, fingerprint, list_runs, migrate
from seqlab.cli.training import launch, prepare, train
from seqlab.system.errors import EXIT_STOPPED, SeqlabError, Stopped
from seqlab.system.signals import record_signals

COMMANDS = {
    "train": train,
    "launch": launch,
    "decode": decode,
    "predict": predict,
    "logprob": logprob,
    "evaluate": evaluate,
    "score": score,
    "compare": compare,
    "analyze": analyze,
    "report": report,
    "inspect": inspect,
    "prepare": prepare,
    "list": list_parts,
    "show-batch": show_batch,
    "runs": list_runs,
    "fingerprint": fingerprint,
    "bisect": bisect,
    "average": average,
    "migrate": migrate,
    "check": check,
    "import": import_run,
    "export": export,
    "cost": cost,
    "diagnose": diagnose,
    "cache": cache,
}


def main() -> None:
    """Runs a command; bad input is one line on standard error and exit code 2, a training that was asked to stop 75,
    an interrupt of anything else 130.
    """
    if sys.argv[1:2] == ["train"]:
        record_signals()  # first of all: what follows imports for seconds
    code, at_once = 0, False
    try:
        run_command(sys.argv[1:])
        sys.stdout.flush()  # here, where a reader that has gone is no error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: end quietly
    except (SeqlabError, OSError) as error:  # an OSError: a full disk, say
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
    # The usual end would wait for other processes, which do not come to it; and JAX, torn out of the midst of
    # compiling, may crash there.
    if at_once and (connected() or code == EXIT_STOPPED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def connected() -> bool:
    """Whether this process is one of several."""
    return "seqlab.distributed.hosts" in sys.modules and sys.modules["seqlab.distributed.hosts"].connected()


def run_command(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
    elif arguments[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(COMMANDS)}"
        raise SeqlabError(f"no command {arguments[0]!r}: {hint}")
    elif arguments[0] in ("train", "launch", "prepare", "cost", "diagnose"):
        COMMANDS[arguments[0]](arguments[1:])
    else:
        run_parsed(COMMANDS[arguments[0]], f"seqlab {arguments[0]}", arguments[1:])


def help_text() -> str:
    lines = [
        "usage: seqlab COMMAND ...",
        "",
        "Sequence models: train, decode with beam search, cite a score.",
        "",
    ]
    lines += [f"  {name:12} {(command.__doc__ or '').split(chr(10))[0]}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "seqlab COMMAND --help says more."])
