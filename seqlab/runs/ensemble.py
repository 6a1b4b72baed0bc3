"""Ensembles of runs that decode together."""

import math
from collections.abc import Sequence

from seqlab.runs.loading import Run
from seqlab.search.ensemble import MEANS, Ensemble
from seqlab.system.errors import SeqlabError


def combine(runs: Sequence[Run], mean: str = "probabilities", lm: Run | None = None, weight: float = 0.0) -> Run:
    """Returns the ensemble of several runs, with the task and the search of the first run, and optionally a language
    model with a `weight`. Raises `SeqlabError` if the runs do not use the same target tokens.
    """
    first, *members = runs
    if mean not in MEANS:
        raise SeqlabError(f"the mean of an ensemble must be one of {', '.join(MEANS)}, not {mean!r}")
    for run in (*members, *([lm] if lm else [])):
        if run.codecs.get("target") != first.codecs.get("target"):
            raise SeqlabError(
                f"{run.folder} has a different target tokenizer than {first.folder}: train it with --tokenizer"
            )
    for run in members:
        if run.experiment.task != first.experiment.task or run.codecs != first.codecs:
            raise SeqlabError(
                f"{run.folder} has a different task or codec than {first.folder}: they cannot form an ensemble"
            )
    if lm is not None and ("source" in lm.experiment.task.columns or not lm.experiment.task.searches):
        raise SeqlabError(f"{lm.folder} is not a language model")
    if not 0 <= weight < math.inf:
        raise SeqlabError(f"the weight of a language model must be a finite number of at least 0, not {weight}")
    model = Ensemble(tuple(run.model for run in runs), mean, lm and lm.model, weight)
    return first._replace(model=model, params=tuple(run.params for run in (*runs, *([lm] if lm else []))))
