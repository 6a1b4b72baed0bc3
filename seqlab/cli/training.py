"""`seqlab train`, `seqlab launch` and `seqlab prepare`."""

import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

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
    """Trains CONFIG into RUN: seqlab train CONFIG --out RUN [--steps N] [--model.dim N] ..."""
    usage = "usage: seqlab train CONFIG --out RUN [options]; seqlab train CONFIG --help lists CONFIG's options"
    name, rest = first_argument(arguments, "CONFIG", usage)
    from seqlab import catalogue

    config = catalogue.load_config(Path(name))

    def run(
        out: Annotated[Path, arg(metavar="RUN", help="The run's folder.")],
        experiment: Annotated[Any, arg(name="")] = config,
        init_from: Annotated[Path | None, arg(metavar="RUN", help="Another run, to start from its best.")] = None,
        tokenizer: Annotated[Path | None, arg(metavar="FILE", help="A SentencePiece model to use.")] = None,
        explain: Annotated[bool, arg(help="Prints which part of the state lies on which axis, and ends.")] = False,
        cluster: ProcessOptions = SINGLE_PROCESS,
        places: Annotated[ReferencePlaces, arg(name="")] = DEFAULT_REFERENCE_PLACES,
    ) -> None:
        """Trains CONFIG into the folder RUN. The same command again goes on where the run was."""
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

    run_parsed(run, f"seqlab train {name}", rest)


def launch(arguments: list[str]) -> None:
    """Runs a command in several processes on this machine: seqlab launch --processes N -- train CONFIG --out RUN"""
    at = arguments.index("--") if "--" in arguments else len(arguments)

    def run(
        processes: Annotated[int, arg(metavar="N", help="How many.")],
        grace: Annotated[
            float, arg(metavar="S", help="Seconds from SIGTERM to SIGKILL, once one has failed.")
        ] = 30.0,
        gpus_each: Annotated[int, arg(metavar="K", help="GPUs of its own for each; 0: each sees all.")] = 0,
    ) -> None:
        """Runs `seqlab train`, `decode` or `evaluate`, which follows behind --, in N processes on this machine. When
        one ends badly it is named, the others are stopped, and the exit code is its own; 75: stopped as asked, saved.
        """
        from seqlab.distributed.launch import launch, seqlab_commands

        code = launch(seqlab_commands(arguments[at + 1 :], processes, gpus_each), grace)
        if code not in (0, 2) and arguments[at + 1] == "train":
            print("seqlab launch: the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(code)

    run_parsed(run, "seqlab launch", arguments[:at])


def prepare(arguments: list[str]) -> None:
    """Prepares a data set: seqlab prepare multi30k/en-de --folder DIR [--data-dir DIR]"""
    usage = "usage: seqlab prepare DATASET [options]; seqlab prepare DATASET --help lists DATASET's options"
    name, rest = first_argument(arguments, "DATASET", usage)
    from seqlab import catalogue
    from seqlab.data import records

    if name.partition("/")[0] == "mixture":
        raise SeqlabError("a mixture is written in a config, and prepared by the training that uses it")
    default = catalogue.dataset(name)

    def run(
        dataset: Annotated[Any, arg(name="")] = default, data_dir: DataDir = DATA_DIR, parts: Parts = None
    ) -> None:
        """Prepares a data set, once."""
        prepared = records.prepare(dataset, data_dir)
        print(prepared.folder)
        for split, count in prepared.counts.items():
            print(f"{split:20} {count:10,} examples  sha256 {prepared.hashes[split][:16]}")
        for name, value in prepared.origin.items():
            print(f"{name}: {value}")

    run_parsed(run, f"seqlab prepare {name}", rest)
