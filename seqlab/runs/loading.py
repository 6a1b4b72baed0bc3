"""Trained runs, loaded for decoding and evaluation."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqlab import catalogue
from seqlab.codecs.codec import Codecs
from seqlab.config import Experiment, Search
from seqlab.data.codec_files import load_codecs
from seqlab.decoding.decoded_text import DecodedText
from seqlab.decoding.lines import decode_lines
from seqlab.decoding.requests import NO_CONSTRAINTS, Constraints, Lines
from seqlab.decoding.trained import TrainedModel
from seqlab.layers.nesting import has_field, with_fields
from seqlab.runs import manifest
from seqlab.runs.checkpoint import check_shapes, parameters_of, restore
from seqlab.runs.parametrized import apply_parametrization, parameter_shapes
from seqlab.system.errors import RESTORE, SeqlabError
from seqlab.system.progress_bar import progress
from seqlab.types import Params


class Run(NamedTuple):
    """A trained run: its experiment, and the parameters of one of its checkpoints."""

    folder: Path
    step: int
    experiment: Experiment
    codecs: Codecs
    params: Params
    model: Any
    """The model of the experiment, or an ensemble."""

    @property
    def trained(self) -> TrainedModel:
        """The parts of the run that decoding uses."""
        return TrainedModel(self.experiment.task, self.model, self.params, self.codecs)

    def translate(self, lines: Sequence[str], **search: Any) -> list[str]:
        """Returns the best text for each line. `search` overrides fields of `config.Search`, such as beam=5.

        For a language model a line is a prompt, and the text begins with it.
        """
        return [texts[0].text for texts in self.write(lines, **search)]

    def write(
        self,
        lines: Sequence[str],
        nbest: int = 1,
        first: int = 1,
        constraints: Constraints = NO_CONSTRAINTS,
        aligned: bool = False,
        **search: Any,
    ) -> list[list[DecodedText]]:
        """Returns the `nbest` best texts for each line with their scores, best first, and with alignments if
        `aligned`. The `constraints` are prefixes and phrases for each line. Errors number the lines from `first`.
        """
        if isinstance(lines, str):
            raise SeqlabError("lines must be a list of strings, not a string")
        inputs = Lines(lines, first=first, constraints=constraints)
        with progress("decoding", len(lines)) as advance:
            return decode_lines(
                self.trained, inputs, self.search_config(**search), count=nbest, aligned=aligned, progress=advance
            )

    def search_config(self, **changes: Any) -> Search:
        """Returns the search settings of the experiment with the `changes` that are not None."""
        changes = {name: value for name, value in changes.items() if value is not None}
        numbers = {name: value.item() for name, value in changes.items() if isinstance(value, np.generic)}
        return dataclasses.replace(self.experiment.search, **changes | numbers)

    def with_search(self, **changes: Any) -> "Run":
        """Returns a copy of the run whose search settings have the `changes` that are not None."""
        return self._replace(experiment=dataclasses.replace(self.experiment, search=self.search_config(**changes)))


def load(run: str | Path, checkpoint: str = "best", dtype: str | None = None) -> Run:
    """Loads the run in a folder. `checkpoint` is "best", "last" or the number of a step. `dtype` replaces the dtype
    of the model. Raises `SeqlabError` if there is no such run or checkpoint.
    """
    folder = Path(run)
    experiment = catalogue.load_experiment(folder / "experiment.json")
    step = manifest.choose_step(folder, checkpoint)
    codecs = load_codecs(folder, experiment.task.columns)
    check_run(experiment, codecs, folder)
    expected = parameter_shapes(experiment, folder)

    def check(declared: Any) -> None:
        for name in ("params", "average") if "average" in declared else ("params",):
            check_shapes(declared.get(name), expected, folder)

    params = parameters_of(restore(folder, step, check=check))
    if dtype is not None:
        if not has_field(experiment.model, "dtype"):
            raise SeqlabError(f"{type(experiment.model).__name__} has no dtype that can be changed")
        experiment = dataclasses.replace(experiment, model=with_fields(experiment.model, dtype=dtype))
    return Run(folder, step, experiment, codecs, apply_parametrization(experiment, params), experiment.model)


def check_run(experiment: Experiment, codecs: Codecs, folder: Path) -> None:
    """Raises `SeqlabError` if the parts of a run do not fit together."""
    try:
        catalogue.check_parts(experiment)
        resolved = catalogue.resolve(experiment, codecs)
    except SeqlabError as error:
        raise SeqlabError(f"{folder}: {error}") from None
    if resolved != experiment:
        raise SeqlabError(f"{folder}: experiment.json lacks the size of a vocabulary; {RESTORE}")
