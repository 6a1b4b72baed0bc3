"""Runs that are written from another run, with other parameters: averaged, merged, pruned or quantized ones."""

import dataclasses
import os
import shutil
from pathlib import Path

import jax
import numpy as np

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.codec_files import RUN_RECORD, load_codecs, save_codecs
from seqlab.runs import saving
from seqlab.runs.base import without_base
from seqlab.runs.loading import Run, load
from seqlab.system.errors import SeqlabError
from seqlab.system.files import atomic_folder, check_new
from seqlab.system.untrusted import resolve_inside
from seqlab.types import Counted, Params


def write_run(source: Path, out: Path, experiment: Experiment, params: Params, change: str, steps: list[int]) -> None:
    """Writes the run `out`, which has this experiment, these parameters in its only checkpoint, and the codecs of the
    run `source`.

    The new run can decode but not resume training, since it has no optimizer state. `change`, such as "pruned", and
    the `steps` of the checkpoints of `source` that it used are recorded. The new checkpoint has the last of these
    steps.
    """
    with atomic_folder(out) as part:
        save_codecs(load_codecs(source, experiment.task.columns), part)
        catalogue.save_experiment(relocate_references(experiment, source, out), part / "experiment.json")
        shutil.copyfile(resolve_inside(source, RUN_RECORD), part / RUN_RECORD)
        saving.save_alone(part, {"params": params, "step": np.int32(steps[-1])}, steps[-1], {change: steps})


def relocate_references(experiment: Experiment, source: Path, out: Path) -> Experiment:
    """Returns the experiment of a run whose paths of references, relative to `source`, are relative to `out`."""

    def relative(path: str) -> str:
        return path if os.path.isabs(path) else os.path.relpath((source / path).absolute(), out.absolute())

    references = tuple((name, relative(path)) for name, path in experiment.references)
    return dataclasses.replace(experiment, references=references)


def load_matrices(run: Path) -> Run:
    """Returns the best checkpoint of a run whose parameters can be compressed, as NumPy arrays.

    Raises `SeqlabError` if the model is counted, or if a parameter is not finite.
    """
    loaded = load(run)
    if isinstance(loaded.experiment.model, Counted):
        name = type(loaded.experiment.model).__name__
        raise SeqlabError(f"{run}: {name} is counted: its parameters are probabilities, which cannot be compressed")
    params = jax.tree.map(np.asarray, loaded.params)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise SeqlabError(f"{run}: checkpoint {loaded.step} has parameters that are not finite: choose another run")
    return loaded._replace(params=params)


def merge(run: Path, out: Path) -> int:
    """Writes the run `out` without parametrization, with the parameters that the parametrization of the best
    checkpoint of `run` returns. Returns the step of that checkpoint. Raises `SeqlabError` if there is no
    parametrization.
    """
    check_new(out)
    loaded = load(run)
    if loaded.experiment.parametrization is None:
        raise SeqlabError(f"{run} has no parametrization to merge: use the run as it is")
    experiment = dataclasses.replace(without_base(loaded.experiment), parametrization=None)
    write_run(run, out, experiment, jax.tree.map(np.asarray, loaded.params), "merged", [loaded.step])
    return loaded.step
