"""Trained runs, loaded for decoding and evaluation."""

import dataclasses
import difflib
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
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
from seqlab.runs.base import base_folder, check_base, complete, own_branches, shares_base
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

    def __repr__(self) -> str:
        """One line: the parameters and codecs would fill a page."""
        names = type(self.experiment.model).__name__, type(self.experiment.task).__name__
        return f"<seqlab run {str(self.folder)!r}: {' for '.join(names)}, step {self.step}>"

    def _repr_html_(self) -> str:
        """A card for notebooks."""
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        rows = {
            "model": type(self.experiment.model).__name__,
            "task": type(self.experiment.task).__name__,
            "parameters": f"{count:,}",
            "checkpoint": f"step {self.step}",
            "columns": ", ".join(f"{name} ({type(codec).__name__})" for name, codec in self.codecs.items()),
        }
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
        return f"<table><caption>{html.escape(str(self.folder))}</caption>{cells}</table>"

    def translate(self, lines: Iterable[str], **search: Any) -> list[str]:
        """Returns the best text for each line; `search` overrides fields of `config.Search`, such as beam=5.

        For a language model a line is a prompt, and the text begins with it. A newline at the end of a line is not
        part of it.
        """
        return [texts[0].text for texts in self.write(lines, **search)]

    def write(
        self,
        lines: Iterable[str],
        nbest: int = 1,
        first: int = 1,
        constraints: Constraints = NO_CONSTRAINTS,
        aligned: bool = False,
        **search: Any,
    ) -> list[list[DecodedText]]:
        """Returns the `nbest` best texts for each line, best first, with scores. Errors count lines from `first`.
        The `constraints` are prefixes and phrases for each line. With alignments if `aligned`. Raises `SeqlabError`
        for lines that are not strings, and for unknown or invalid options.
        """
        texts = texts_of(lines)
        if not isinstance(nbest, int) or nbest < 1:
            raise SeqlabError(f"nbest must be an integer of at least 1, not {nbest!r}")
        inputs = Lines(texts, first=first, constraints=constraints)
        with progress("decoding", len(texts)) as advance:
            return decode_lines(
                self.trained, inputs, self.search_config(**search), count=nbest, aligned=aligned, progress=advance
            )

    def search_config(self, **changes: Any) -> Search:
        """Returns the experiment's search with those `changes` that are not None. Raises `SeqlabError` for an unknown
        field, and for a value that the field cannot have.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        names = [field.name for field in dataclasses.fields(Search)]
        unknown = next((name for name in changes if name not in names), None)
        if unknown is not None:
            near = difflib.get_close_matches(unknown, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"
            raise SeqlabError(f"unknown search option {unknown!r}: {hint}")
        plain = {name: value.item() for name, value in changes.items() if isinstance(value, np.generic)}
        plain |= {name: tuple(value) for name, value in changes.items() if isinstance(value, list)}
        return dataclasses.replace(self.experiment.search, **changes | plain)

    def with_search(self, **changes: Any) -> "Run":
        """Returns a copy of the run whose search settings have the `changes` that are not None."""
        return self._replace(experiment=dataclasses.replace(self.experiment, search=self.search_config(**changes)))


def texts_of(lines: Iterable[str]) -> list[str]:
    """Returns lines as a list, without the newline at the end of each. Raises `SeqlabError` for other values."""
    if isinstance(lines, str | bytes) or not isinstance(lines, Iterable):
        raise SeqlabError(f"lines must be an iterable of strings, not {lines!r:.60}")
    texts = list(lines)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise SeqlabError(f"lines must be strings, but line {number} is {text!r:.60}")
    return [text.removesuffix("\n").removesuffix("\r") for text in texts]


def load(
    run: str | Path, checkpoint: str | int = "best", dtype: str | None = None, base: str | Path | None = None
) -> Run:
    """Returns the run in a folder, at its checkpoint "best", "last" or of a step; with another `dtype` of its model,
    if one is given. `base` is the folder of the base run, if it was moved. Raises `SeqlabError` if there is no such
    checkpoint or base.
    """
    if not isinstance(run, str | Path) or not isinstance(checkpoint, str | int):
        raise SeqlabError(f"expected the path of a run and a checkpoint, not {run!r:.60} and {checkpoint!r:.60}")
    folder = Path(run)
    experiment = catalogue.load_experiment(folder / "experiment.json")
    step = manifest.choose_step(folder, str(checkpoint))
    codecs = load_codecs(folder, experiment.task.columns)
    check_run(experiment, codecs, folder)
    expected = parameter_shapes(experiment, folder)

    stored = own_branches(experiment, {"params": expected})["params"]

    def check(declared: Any) -> None:
        for name in ("params", "average") if "average" in declared else ("params",):
            check_shapes(declared.get(name), stored, folder)

    params = parameters_of(restore(folder, step, check=check))
    if shares_base(experiment):
        params = complete(params, load_base(experiment, folder, base), expected)
    elif base is not None:
        raise SeqlabError(f"{folder} has all its parameters and needs no base run: decode it alone")
    if dtype is not None:
        if not has_field(experiment.model, "dtype"):
            raise SeqlabError(f"{type(experiment.model).__name__} has no dtype that can be changed")
        experiment = dataclasses.replace(experiment, model=with_fields(experiment.model, dtype=dtype))
    return Run(folder, step, experiment, codecs, apply_parametrization(experiment, params), experiment.model)


def load_base(experiment: Experiment, folder: Path, base: str | Path | None) -> Params:
    """Returns the parameters of the base of a run. Raises `SeqlabError` if the base is not there or has changed."""
    place = base_folder(experiment, folder) if base is None else Path(base)
    if not (place / "experiment.json").is_file():
        raise SeqlabError(
            f"{folder} needs its base run, but {place} is not a run: restore it, or name the folder of the base, as "
            f"in `seqlab decode BASE --adapter {folder}`"
        )
    params = load(place).params
    check_base(folder, place, params)
    return params


def check_run(experiment: Experiment, codecs: Codecs, folder: Path) -> None:
    """Raises `SeqlabError` if the parts of a run do not fit together."""
    try:
        catalogue.check_parts(experiment)
        resolved = catalogue.resolve(experiment, codecs)
    except SeqlabError as error:
        raise SeqlabError(f"{folder}: {error}") from None
    if resolved != experiment:
        raise SeqlabError(f"{folder}: experiment.json lacks the size of a vocabulary; {RESTORE}")
