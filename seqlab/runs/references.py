"""Frozen models of other runs that a loss may use, such as a teacher or a reference policy."""

from collections.abc import Callable
from pathlib import Path

from seqlab.codecs.codec import Codecs
from seqlab.config import Experiment
from seqlab.runs.loading import load
from seqlab.system.digests import digest_of
from seqlab.system.errors import SeqlabError
from seqlab.system.files import path_in
from seqlab.types import Params, Reference


def load_references(
    experiment: Experiment, run: Path, codecs: Codecs, base: Path | None = None
) -> dict[str, Reference]:
    """Returns the references of an experiment by name, each with the best parameters of its run, including the base
    of a parametrization, if the run shares one.

    Paths are relative to the folder `base`, or to the run if it is None. Raises `SeqlabError` if a path is not a run,
    or if the codec of one of its columns differs from the codec here.
    """
    references = {}
    for name, path in experiment.references:
        folder = path_in(base or run, path)
        if not (folder / "experiment.json").is_file():
            raise SeqlabError(
                f"reference {name}: {folder} is not a run; paths are relative to {base or run}, or to --base DIR"
            )
        reference = load(folder)
        differing = [column for column, codec in reference.codecs.items() if codecs.get(column, codec) != codec]
        if differing:
            raise SeqlabError(
                f"reference {name}: {folder} has a different codec for the column {differing[0]!r}: use the codec of "
                "that run with --tokenizer FILE (for text) or --init-from"
            )
        references[name] = Reference(reference.model, reference.params)
    return references


def place_references(references: dict[str, Reference], place: Callable[[Params], Params]) -> dict[str, Reference]:
    """Returns the references with their parameters placed on the devices."""
    return {name: Reference(reference.model, place(reference.params)) for name, reference in references.items()}


def reference_digests(references: dict[str, Reference]) -> dict[str, str]:
    """Returns the SHA-256 of the parameters of each reference, by its name in the record of a run."""
    return {f"references/{name}": digest_of(reference.params) for name, reference in references.items()}
