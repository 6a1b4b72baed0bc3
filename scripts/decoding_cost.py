"""Decodes a split with a run, and measures BLEU, speed and the size of the parameters.

    python scripts/decoding_cost.py runs/multi30k --split test_2016_flickr --beam 5

The speed is that of a second pass, which compiles nothing. The size is that of the stored parameters,
without the state of the optimizer.
"""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from seqlab.cli.options import DATA_DIR, RunFolder, Split
from seqlab.data.records import prepare_split
from seqlab.metrics.registry import score
from seqlab.runs.checkpoint import byte_count, parameters_of, restore
from seqlab.runs.loading import load
from seqlab.system.compilation import keep_compilations
from seqlab.system.errors import SeqlabError


def measure(folder: Path, split: str, beam: int) -> dict[str, Any]:
    """Returns the scores, and the data that they were measured on."""
    run = load(folder)
    data = prepare_split(run.experiment.data, split, DATA_DIR)
    examples = list(data.read(split))
    sources = [example["source"] for example in examples]
    run.translate(sources, beam=beam)
    begin = time.perf_counter()
    texts = run.translate(sources, beam=beam)
    seconds = time.perf_counter() - begin
    scores = [result._asdict() for result in score("bleu", texts, [[example["target"] for example in examples]])]
    size = byte_count(parameters_of(restore(folder, run.step)))
    costs = {"sentences per second": len(sources) / seconds, "MiB": size / 2**20}
    scores += [{"name": name, "value": value, "signature": f"beam:{beam}"} for name, value in costs.items()]
    return {"scores": scores, "data": {"sha256": data.hashes[split], **data.origin}}


def main(
    run: RunFolder,
    split: Split = "test",
    beam: Annotated[int, arg(help="Beam width.")] = 5,
) -> None:
    """Print the BLEU, the decoding speed and the size of a run as JSON."""
    keep_compilations()
    print(json.dumps(measure(run, split, beam)))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except SeqlabError as error:
        sys.exit(f"decoding_cost: {error}")
