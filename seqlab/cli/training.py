"""TODO cli.training."""

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from seqlab.cli.options import ALONE, DATA_DIR, Cluster, DataDir, Parts
from seqlab.cli.start import alone, first_argument, start_computing
from seqlab.system.signals import wish_to_stop


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
        cluster: Cluster = ALONE,
        data_dir: DataDir = DATA_DIR,
        parts: Parts = None,
    ) -> None:
        """Trains CONFIG into the folder RUN. The same command again goes on where the run was."""
        from seqlab.runs.listing import command_line
        from seqlab.training.explain import explained
        from seqlab.training.train import train

        with wish_to_stop():
            start_computing(cluster, experiment.parallel.heartbeat)
            if explain:
                print("\n".join(explained(experiment)))
                return
            command = command_line(Path.cwd(), ["seqlab", "train", *alone(arguments)])
            train(experiment, out, data_dir, init_from, tokenizer, command=command)

    tyro.cli(run, prog=f"seqlab train {name}", args=rest)


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

    tyro.cli(run, prog="seqlab launch", args=arguments[:at])
