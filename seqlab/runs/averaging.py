"""Averaging of the last checkpoints of a run into a new run."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqlab import catalogue
from seqlab.runs import checkpoint, manifest
from seqlab.runs.derived import write_run
from seqlab.system.errors import SeqlabError
from seqlab.system.files import check_new


def average(run: Path, last: int, out: Path) -> list[int]:
    """Writes the run `out`, whose only checkpoint has the mean parameters of the last `last` checkpoints of `run`.

    The new run can decode but not resume training, since it has no optimizer state. Returns the steps of the averaged
    checkpoints. Raises `SeqlabError` if there are fewer consecutive checkpoints.
    """
    experiment = catalogue.load_experiment(run / "experiment.json")
    check_new(out)
    params, steps = mean_parameters(run, last, experiment.validation.every, experiment.steps)
    write_run(run, out, experiment, params, "averaged", steps)
    return steps


def mean_parameters(run: Path, count: int, every: int, end: int) -> tuple[Any, list[int]]:
    """Returns the mean parameters of the last `count` checkpoints, and the steps of these checkpoints. Only multiples
    of `every` and the last step, `end`, count, and not the steps at which training was stopped.

    Raises `SeqlabError` if there are fewer. A best checkpoint from before a gap is not one of the last.
    """
    steps = [step for step in manifest.checkpoint_steps(run) if step % every == 0 or step == end]
    gaps = [i for i in range(1, len(steps)) if steps[i] - steps[i - 1] > every]
    last = steps[gaps[-1] :] if gaps else steps
    if count < 1:
        raise SeqlabError(f"the number of checkpoints to average must be at least 1, not {count}")
    if count > len(last):
        listed = f" (steps {', '.join(map(str, last))})" if last else ""
        raise SeqlabError(
            f"{run}: cannot average {count} checkpoints: the run ends with only {len(last)} "
            f"consecutive ones{listed}; --checkpoints.last sets how many a run keeps"
        )
    steps = last[-count:]
    trees = [checkpoint.parameters_of(checkpoint.restore(run, step)) for step in steps]
    mean = jax.tree.map(
        lambda *leaves: np.mean(np.stack(leaves), axis=0, dtype=np.float64).astype(leaves[0].dtype), *trees
    )
    return mean, steps
