"""Runs that share the parameters of a base run, such as several adapters of one model.

Such a run has a parametrization and the reference "base". Its checkpoints contain only the parameters that it trains;
the frozen ones are those of the base, whose SHA-256 the run records.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab.config import Experiment
from seqlab.data.codec_files import RUN_RECORD, read_record
from seqlab.runs.parametrized import replaces_any, trained_pattern
from seqlab.runs.trainable import split
from seqlab.system.digests import digest_of
from seqlab.system.errors import RESTORE, SeqlabError
from seqlab.system.files import path_in
from seqlab.types import Params

BASE = "base"  # name of the reference
BRANCHES = frozenset(("params", "average"))  # the branches of a state that contain parameters


def shares_base(experiment: Experiment) -> bool:
    """Returns whether the frozen parameters of a run are those of its base."""
    return experiment.parametrization is not None and BASE in dict(experiment.references)


def with_base(experiment: Experiment, init_from: Path | None, folder: Path) -> Experiment:
    """Returns the experiment of a new run with the run that it starts from as its base, if a parametrization freezes
    and needs its parameters. The path of the base is relative to `folder`.
    """
    parametrization = experiment.parametrization
    is_frozen = parametrization is not None and trained_pattern(experiment) and not replaces_any(parametrization)
    if init_from is None or not is_frozen or BASE in dict(experiment.references):
        return experiment
    path = os.path.relpath(init_from.absolute(), folder.absolute())
    return dataclasses.replace(experiment, references=(*experiment.references, (BASE, path)))


def without_base(experiment: Experiment) -> Experiment:
    """Returns the experiment of a run that contains all its parameters."""
    references = tuple(pair for pair in experiment.references if pair[0] != BASE)
    return dataclasses.replace(experiment, references=references)


def base_folder(experiment: Experiment, folder: Path) -> Path:
    """Returns the folder of the base; paths are relative to `folder`."""
    return path_in(folder, dict(experiment.references)[BASE])


def own_branches(experiment: Experiment, tree: dict[str, Any]) -> dict[str, Any]:
    """Returns a state, as a checkpoint stores it, without the parameters of the base."""
    if not shares_base(experiment):
        return tree
    pattern = trained_pattern(experiment)
    return {name: split(branch, pattern)[0] if name in BRANCHES else branch for name, branch in tree.items()}


def complete(own: Params, base: Params, expected: Params) -> Params:
    """Returns parameters with the paths of `expected`: those that a checkpoint stores, and otherwise those of the
    base.
    """
    leaves = {**flatten_dict(base, sep="/"), **flatten_dict(own, sep="/")}
    return unflatten_dict({path: leaves[path] for path in flatten_dict(expected, sep="/")}, sep="/")


def check_base(run: Path, folder: Path, base: Params) -> None:
    """Raises `SeqlabError` unless the parameters of the run `folder` are those that `run` was trained on."""
    recorded = read_record(run / RUN_RECORD).references.get(f"references/{BASE}")
    if recorded != digest_of(base):
        raise SeqlabError(f"{run} was trained on another base than {folder}, or {folder} has changed: {RESTORE}")
