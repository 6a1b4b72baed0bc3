"""A trained run, ready to write and to be judged."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab import catalogue
from seqlab.config import Experiment, Search
from seqlab.data.tokenizer_files import load_tokenizers
from seqlab.data.tokenizers import Tokenizers
from seqlab.decoding.decoded_text import DecodedText
from seqlab.decoding.lines import decode_lines
from seqlab.decoding.requests import NO_CONSTRAINTS, Constraints
from seqlab.decoding.settings import check_search
from seqlab.runs import checkpoint, manifest
from seqlab.runs.parameters import parameter_shapes
from seqlab.system.errors import SeqlabError
from seqlab.system.progress import progress
from seqlab.types import Params


class Run(NamedTuple):
    """An experiment with the parameters of one of its checkpoints."""

    folder: Path
    step: int
    experiment: Experiment
    tokenizers: Tokenizers
    params: Params
    model: Any
    """The experiment's, or several as one."""

    def translate(self, lines: Sequence[str], **search: Any) -> list[str]:
        """The best text for each of a list of lines; `search` overrides fields of `config.Search`, such as beam=5.

        For a language model a line is a prompt, and the text begins with it.
        """
        return [written[0].text for written in self.write(lines, **search)]

    def write(
        self,
        lines: Sequence[str],
        nbest: int = 1,
        first: int = 1,
        told: Constraints = NO_CONSTRAINTS,
        aligned: bool = False,
        **search: Any,
    ) -> list[list[DecodedText]]:
        """The `nbest` best texts for each line with their scores, best first; errors count lines from `first`. What
        each line is `told`: texts to begin with, phrases that must be in it. With alignments if `aligned`.
        """
        if isinstance(lines, str):
            raise SeqlabError("lines are a list of strings, not one string")
        found = self.search(**search)
        with progress("decoding", len(lines)) as advance:
            return decode_lines(
                self.experiment.task,
                self.model,
                self.params,
                self.tokenizers,
                lines,
                found,
                wanted=nbest,
                first=first,
                told=told,
                aligned=aligned,
                progress=advance,
            )

    def search(self, **changes: Any) -> Search:
        """The experiment's search with what is not None in `changes`."""
        given = {name: value for name, value in changes.items() if value is not None}
        search = dataclasses.replace(self.experiment.search, **given)
        check_search(search)
        return search

    def searching(self, **changes: Any) -> "Run":
        """The run, whose own search has what is not None in `changes`."""
        return self._replace(experiment=dataclasses.replace(self.experiment, search=self.search(**changes)))


def load(run: str | Path, which: str = "best", dtype: str | None = None) -> Run:
    """The run in a folder, at its checkpoint "best", "last" or of a step; with another `dtype` of its model's, if one
    is given. Raises `SeqlabError` if there is none.
    """
    folder = Path(run)
    experiment = catalogue.load_experiment(folder / "experiment.json")
    step = manifest.choose_step(folder, which)
    tokenizers = load_tokenizers(folder, experiment.task.columns)
    check_run(experiment, tokenizers, folder)
    wanted = parameter_shapes(experiment, folder)

    def check(declared: Any) -> None:
        for name in ("params", "average") if "average" in declared else ("params",):
            checkpoint.check_shapes(declared.get(name), wanted, folder)

    params = checkpoint.parameters_of(checkpoint.restore(folder, step, check=check))
    if dtype is not None:
        if not hasattr(experiment.model, "dtype"):
            raise SeqlabError(f"{type(experiment.model).__name__} has no dtype that could be another")
        experiment = dataclasses.replace(experiment, model=experiment.model.clone(dtype=dtype))
    return Run(folder, step, experiment, tokenizers, params, experiment.model)


def check_run(experiment: Experiment, tokenizers: Tokenizers, folder: Path) -> None:
    """Raises where the parts of a run do not go together."""
    try:
        catalogue.check_parts(experiment)
        check_search(experiment.search)
        resolved = catalogue.resolve(experiment, tokenizers)
    except SeqlabError as error:
        raise SeqlabError(f"{folder}: {error}") from None
    if resolved != experiment:
        raise SeqlabError(f"{folder}: its experiment leaves open how large the vocabulary is")
