"""Evaluates a run, and measures what its training cost: trainable parameters, seconds per step, size on disk.

    python scripts/footprint.py runs/gpt-shakespeare --split validation

Prints the scores of `seqlab evaluate` and these figures as JSON. The seconds per step are the time between the first
and the last checkpoint that the run still has, divided by the number of steps between them. They include validation.
The size is that of the last checkpoint, with the state of the optimizer.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import tyro

from seqlab import catalogue
from seqlab.cli.options import DATA_DIR, RunFolder, Split
from seqlab.data.codec_files import load_codecs
from seqlab.evaluation.evaluate import evaluate
from seqlab.runs.checkpoint import checkpoint_size
from seqlab.runs.loading import load
from seqlab.runs.manifest import checkpoint_steps
from seqlab.runs.parametrized import parameter_shapes, trained_pattern
from seqlab.runs.trainable import split as split_params
from seqlab.system.compilation import keep_compilations
from seqlab.system.errors import SeqlabError


def trainable_count(run: Path) -> int:
    """Returns the number of parameters that a run trains."""
    experiment = catalogue.load_experiment(run / "experiment.json")
    experiment = catalogue.resolve(experiment, load_codecs(run, experiment.task.columns))
    trained, _ = split_params(parameter_shapes(experiment, run), trained_pattern(experiment))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))


def costs(run: Path) -> dict[str, float]:
    """Returns the trainable parameters, seconds per step and MiB on disk of a run. Raises `SeqlabError` if it has
    fewer than two checkpoints.
    """
    steps = checkpoint_steps(run)
    if len(steps) < 2:
        raise SeqlabError(f"{run} has {len(steps)} checkpoints: the time needs two")
    first, last = (run / "checkpoints" / str(step) for step in (steps[0], steps[-1]))
    seconds = (last / "state").stat().st_mtime - (first / "state").stat().st_mtime
    return {
        "trainable parameters": trainable_count(run),
        "seconds per step": seconds / (steps[-1] - steps[0]),
        "checkpoint MiB": checkpoint_size(run, steps[-1]) / 2**20,
    }


def measure(run: Path, split: str) -> dict[str, Any]:
    """Returns the scores and costs of a run, and the data that it was evaluated on."""
    evaluation = evaluate(load(run), split, DATA_DIR)
    scores = [score._asdict() for score in evaluation.scores]
    scores += [{"name": name, "value": value, "signature": ""} for name, value in costs(run).items()]
    return {"scores": scores, "data": {"sha256": evaluation.data.hashes[split], **evaluation.data.origin}}


def main(run: RunFolder, split: Split = "validation") -> None:
    """Print the scores and the costs of a run as JSON."""
    keep_compilations()
    print(json.dumps(measure(run, split)))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except SeqlabError as error:
        sys.exit(f"footprint: {error}")
