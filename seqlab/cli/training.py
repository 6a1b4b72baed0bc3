"""`seqlab train`, `seqlab launch` and `seqlab prepare`."""

import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from seqlab.cli.options import (
    DATA_DIR,
    DEFAULT_REFERENCE_PLACES,
    SINGLE_PROCESS,
    DataDir,
    Parts,
    ProcessOptions,
    ReferencePlaces,
)
from seqlab.cli.parsing import run_parsed
from seqlab.cli.start import first_argument, start_computing, without_processes
from seqlab.system.errors import SeqlabError
from seqlab.system.signals import listen_for_stop


def train(arguments: list[str]) -> None:
    """Train the experiment in CONFIG and save it in the folder RUN, or resume it."""
    usage = "usage: seqlab train CONFIG --out RUN [options]; seqlab train CONFIG --help lists CONFIG's options"
    name, rest = first_argument(arguments, "CONFIG", usage)
    from seqlab import catalogue

    config = catalogue.load_config(Path(name))

    def run(
        out: Annotated[Path, arg(metavar="RUN", help="Folder of the run.")],
        experiment: Annotated[Any, arg(name="")] = config,
        init_from: Annotated[
            Path | None, arg(metavar="RUN", help="Start from the best parameters and the codecs of this run.")
        ] = None,
        tokenizer: Annotated[
            Path | None, arg(metavar="FILE", help="SentencePiece model to use for all text columns.")
        ] = None,
        explain: Annotated[bool, arg(help="Print the parameter shardings and exit.")] = False,
        cluster: ProcessOptions = SINGLE_PROCESS,
        places: Annotated[ReferencePlaces, arg(name="")] = DEFAULT_REFERENCE_PLACES,
    ) -> None:
        """Train the experiment in CONFIG and save it in the folder RUN. Repeat the command to resume a stopped run.

        The options below are those of the named config, with its values as defaults.

        Example: seqlab train configs/quickstart.py --out runs/quickstart --steps 2000
        """
        from seqlab.runs.command import command_line
        from seqlab.training.describe_sharding import describe_sharding
        from seqlab.training.train import train

        with listen_for_stop():
            start_computing(cluster, experiment.parallel.heartbeat)
            if explain:
                print("\n".join(describe_sharding(experiment)))
                return
            command = command_line(Path.cwd(), ["seqlab", "train", *without_processes(arguments)])
            train(experiment, out, places.data_dir, init_from, tokenizer, places.base, command=command)

    run_parsed(run, "seqlab train CONFIG", rest)


def launch(arguments: list[str]) -> None:
    """Run a command in several processes on this machine."""
    at = arguments.index("--") if "--" in arguments else len(arguments)

    def run(
        command: Annotated[
            Positional[tuple[str, ...]],
            arg(
                metavar="-- train|decode|evaluate ...",
                help="Command to run, with its arguments.",
                help_behavior_hint="(required)",
            ),
        ] = (),
        *,
        processes: Annotated[int, arg(metavar="N", help="Number of processes.")],
        grace: Annotated[
            float,
            arg(metavar="SECONDS", help="Number of seconds between SIGTERM and SIGKILL when processes are stopped."),
        ] = 30.0,
        gpus_each: Annotated[
            int, arg(metavar="COUNT", help="Number of GPUs per process; 0: all processes see all GPUs.")
        ] = 0,
    ) -> None:
        """Run the command after -- in N processes on this machine.

        If a process fails, launch reports which one, stops the others, and exits with the same exit code.
        Exit code 75 means that training was stopped by a signal and its state was saved.

        Example: seqlab launch --processes 2 -- train configs/quickstart.py --out runs/quickstart
        """
        from seqlab.distributed.launch import launch, seqlab_commands

        if command:
            raise SeqlabError("the command must follow --: seqlab launch --processes N -- COMMAND ...")
        code = launch(seqlab_commands(arguments[at + 1 :], processes, gpus_each), grace)
        if code not in (0, 2) and arguments[at + 1] == "train":
            print("seqlab launch: repeat the command to resume from the last checkpoint", file=sys.stderr)
        sys.exit(code)

    run_parsed(run, "seqlab launch", arguments[:at])


def prepare(arguments: list[str]) -> None:
    """Prepare a dataset in advance, so that training starts at once."""
    usage = "usage: seqlab prepare DATASET [options]; seqlab prepare DATASET --help lists DATASET's options"
    name, rest = first_argument(arguments, "DATASET", usage)
    from seqlab import catalogue
    from seqlab.data import records

    if name.partition("/")[0] == "mixture":
        raise SeqlabError("a mixture is defined in a config and prepared when training starts")
    default = catalogue.dataset(name)

    def run(
        dataset: Annotated[Any, arg(name="")] = default, data_dir: DataDir = DATA_DIR, parts: Parts = None
    ) -> None:
        """Prepare DATASET. Prepared data is stored and reused.

        The options below are those of the named dataset.

        Example: seqlab prepare multi30k/en-de --folder multi30k
        """
        prepared = records.prepare(dataset, data_dir)
        print(prepared.folder)
        for split, count in prepared.counts.items():
            print(f"{split:20} {count:10,} examples  sha256 {prepared.hashes[split][:16]}")
        for name, value in prepared.origin.items():
            print(f"{name}: {value}")

    run_parsed(run, "seqlab prepare DATASET", rest)
