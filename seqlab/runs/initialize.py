"""Initialization of parameters from other runs, or from parts of them."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from seqlab import catalogue
from seqlab.codecs.codec import Codecs, TextCodec
from seqlab.config import Experiment
from seqlab.data.codec_files import load_codecs
from seqlab.runs.base import shares_base
from seqlab.runs.parameters import best_parameters, init_model_parameters
from seqlab.runs.pieces import PieceAxis, copy_matching, piece_axes
from seqlab.system.errors import SeqlabError
from seqlab.system.files import path_in
from seqlab.types import Params

NO_PIECES: Mapping[str, PieceAxis] = MappingProxyType({})


def load_model(
    run: Path, experiment: Experiment, codecs: Codecs, say: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """Returns the best parameters of a run, by path such as "params/encoder/stack_0/self_attention/query/kernel", for
    the model of an experiment with these codecs.

    If the run has another tokenizer, entries of pieces are matched as in `load_parts`. Reports the numbers of matched
    pieces, and the parameters that the run lacks, such as adapters; they keep their initial values. Raises
    `SeqlabError` if the run has other parameters, or parameters of other shapes.
    """
    model, stored = experiment.model, parameters_below(run, "")
    make_params = functools.partial(init_model_parameters, model, experiment.seed)
    differ = pieces_differ(run, codecs)
    params: Any = make_params() if differ else jax.eval_shape(make_params)
    needed: Any = flatten_dict(params["params"], sep="/")
    pieces = piece_axes(model, codecs, {path: leaf.shape for path, leaf in needed.items()}) if differ else {}
    new = sorted(needed.keys() - stored.keys())
    for path in (*stored, *(new if shares_base(experiment) else ())):
        stored_shape, needed_shape = (
            leaves[path].shape if path in leaves else "missing" for leaves in (stored, needed)
        )
        is_missing = "missing" in (stored_shape, needed_shape)
        if stored_shape != needed_shape and (is_missing or path not in pieces):
            raise SeqlabError(
                f"{run} has a different model: {path} is {stored_shape} in the run, and {needed_shape} here: "
                f"use the {f'model of {run}' if is_missing else 'same sizes'}"
            )
    stored, lines = match_arrays(str(run), run, {path: (path, leaf) for path, leaf in stored.items()}, needed, pieces)
    for line in (*lines, *describe_new(new)):
        say(line)
    return {f"params/{path}": leaf for path, leaf in stored.items()}


def pieces_differ(run: Path, codecs: Codecs) -> bool:
    """Returns whether a text column has another codec in a run, or none."""
    columns = catalogue.load_experiment(run / "experiment.json").task.columns
    stored = {name: codec.digest for name, codec in load_codecs(run, columns).items()}
    return any(isinstance(codec, TextCodec) and stored.get(name) != codec.digest for name, codec in codecs.items())


def load_parts(
    initialize: Sequence[tuple[str, str, str]],
    folder: Path,
    params: Params,
    say: Callable[[str], None],
    given: Collection[str] = (),
    pieces: Mapping[str, PieceAxis] = NO_PIECES,
) -> dict[str, np.ndarray]:
    """Returns parameters by path, such as "params/encoder/stack_0/self_attention/query/kernel", for a model with the
    initial parameters `params`. Their shapes suffice if no array has an axis of `pieces`, which are given by path
    below "params".

    Each item of `initialize` is a part of the model, a run, and the part of the run's best parameters to copy. The
    path of a run is relative to `folder`. A part is a prefix of paths below "params", such as "encoder" or
    "encoder/stack_0"; "" is the whole model. Later parts replace earlier ones. If the run has another tokenizer, only
    the entries of pieces that both tokenizers have are copied; the others keep their initial values. Reports the
    numbers of arrays that are copied, unused and new; the paths in `given` are initialized elsewhere and are not new.
    Raises `SeqlabError` if an array has another shape, or if a part copies nothing.
    """
    needed: Any = flatten_dict(params["params"], sep="/")
    taken: dict[str, np.ndarray] = {}
    for part, run, stored_part in initialize:
        stored_run = path_in(folder, run)
        stored = parameters_below(stored_run, stored_part)
        pairs = {join(part, rest): (join(stored_part, rest), leaf) for rest, leaf in stored.items()}
        fitting = {path: pair for path, pair in pairs.items() if path in needed}
        if not fitting:
            raise SeqlabError(
                f"initialize: no parameter of {describe_part(stored_part)} of the run {run} fits "
                f"{describe_part(part)} of this one: check the names of both parts"
            )
        leaves, lines = match_arrays(run, stored_run, fitting, needed | taken, pieces)
        taken |= leaves
        left = f", {len(pairs) - len(fitting)} unused" if len(pairs) > len(fitting) else ""
        say(f"{part or 'the model'}: {len(fitting)} arrays from {stored_part or 'the model'} of {run}{left}")
        for line in lines:
            say(line)
    for line in describe_new(sorted(path for path in needed.keys() - taken.keys() if f"params/{path}" not in given)):
        say(line)
    return {f"params/{path}": leaf for path, leaf in taken.items()}


def describe_new(paths: list[str]) -> Iterator[str]:
    """Yields a line about the parameters that no run has, if there are any."""
    if paths:
        yield f"new: {len(paths)} arrays, {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}"


def match_arrays(
    run: str,
    folder: Path,
    stored: Mapping[str, tuple[str, Any]],
    initial: Mapping[str, Any],
    pieces: Mapping[str, PieceAxis],
) -> tuple[dict[str, Any], list[str]]:
    """Returns arrays of a run in a `folder` as this model needs them, and lines about those whose pieces are matched.
    `stored` has the path in the run and the array, by the path in this model; `initial` the initial arrays. Raises
    `SeqlabError`, which names the `run`, if an array has another shape.
    """
    tables = {place: leaf.shape for path, (place, leaf) in stored.items() if path in pieces}
    stored_pieces = pieces_of(folder, tables) if tables else {}
    leaves, lines = {}, []
    for path, (place, leaf) in stored.items():
        leaves[path], axis, stored_axis = leaf, pieces.get(path), stored_pieces.get(place)
        if axis is not None and (stored_axis is None or stored_axis.codec.digest != axis.codec.digest):
            leaves[path], count = match_pieces(path, run, initial[path], leaf, axis, stored_axis)
            rows = f"{count:,} of {len(axis.codec.names):,} rows"
            lines.append(f"{path}: copied {rows}, those of pieces that both tokenizers have")
        elif leaf.shape != initial[path].shape:
            raise shape_error(path, run, leaf, initial[path])
    return leaves, lines


def pieces_of(run: Path, sizes: dict[str, tuple[int, ...]]) -> dict[str, PieceAxis]:
    """Returns the axes of pieces of some parameters of a run, as `piece_axes` does."""
    experiment = catalogue.load_experiment(run / "experiment.json")
    return piece_axes(experiment.model, load_codecs(run, experiment.task.columns), sizes)


def match_pieces(
    path: str, run: str, initial: Any, leaf: Any, axis: PieceAxis, stored_axis: PieceAxis | None
) -> tuple[np.ndarray, int]:
    """Returns a parameter of this model with the entries of pieces that the tokenizer of the run has, too, and their
    number. Raises `SeqlabError` if the entries have another shape, or if the run has no tokenizer for them.
    """
    if stored_axis is None:
        raise SeqlabError(
            f"initialize: {path} has no tokenizer in {run}, so its rows cannot be matched: initialize smaller parts, "
            "without it"
        )
    if np.delete(leaf.shape, stored_axis.axis).tolist() != np.delete(initial.shape, axis.axis).tolist():
        raise shape_error(path, run, leaf, initial)
    return copy_matching(initial, axis, leaf, stored_axis)


def shape_error(path: str, run: str, leaf: Any, initial: Any) -> SeqlabError:
    return SeqlabError(
        f"initialize: {path} is {leaf.shape} in {run}, but {initial.shape} here: use the same sizes in both models"
    )


def parameters_below(run: Path, part: str) -> dict[str, Any]:
    """Returns the best parameters of a run whose paths start with a part, by the rest of the path."""
    leaves: Any = flatten_dict(best_parameters(run)["params"], sep="/")
    if not part:
        return leaves
    return {path.removeprefix(f"{part}/"): leaf for path, leaf in leaves.items() if path.startswith(f"{part}/")}


def join(part: str, rest: str) -> str:
    return f"{part}/{rest}" if part else rest


def describe_part(part: str) -> str:
    return f"the part {part!r}" if part else "the model"
