"""TODO cli.prepare."""

from typing import Annotated, Any

import tyro
from tyro.conf import arg

from seqlab.cli.options import DATA_DIR, DataDir, Parts
from seqlab.cli.start import first_argument
from seqlab.system.errors import SeqlabError


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

    tyro.cli(run, prog=f"seqlab prepare {name}", args=rest)
