"""Initialization of parameters from parts of other runs."""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from seqlab.runs.parameters import best_parameters
from seqlab.system.errors import SeqlabError
from seqlab.types import Params


def load_parts(
    initialize: Sequence[tuple[str, str, str]],
    folder: Path,
    shapes: Params,
    say: Callable[[str], None],
    given: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Returns parameters by path, such as "params/encoder/stack_0/self_attention/query/kernel", for a model whose
    parameters have these `shapes`.

    Each item of `initialize` is a part of the model, a run, and the part of the run's best parameters to copy. The
    path of a run is relative to `folder`. A part is a prefix of paths below "params", such as "encoder" or
    "encoder/stack_0"; "" is the whole model. Later parts replace earlier ones. Reports the numbers of arrays that are
    copied, unused and new; the paths in `given` are initialized elsewhere and are not new. Raises `SeqlabError` if an
    array has another shape, or if a part copies nothing.
    """
    needed: Any = flatten_dict(shapes["params"], sep="/")
    taken: dict[str, np.ndarray] = {}
    for part, run, stored_part in initialize:
        stored = parameters_below(Path(os.path.normpath(folder / run)), stored_part)
        pairs = {join(part, rest): leaf for rest, leaf in stored.items()}
        fitting = {path: leaf for path, leaf in pairs.items() if path in needed}
        if not fitting:
            raise SeqlabError(
                f"initialize: no parameter of {quoted(stored_part)} of the run {run} fits {quoted(part)} of this one"
            )
        for path, leaf in fitting.items():
            if leaf.shape != needed[path].shape:
                raise SeqlabError(f"initialize: {path} is {leaf.shape} in {run}, but {needed[path].shape} here")
        taken |= fitting
        left = f", {len(pairs) - len(fitting)} unused" if len(pairs) > len(fitting) else ""
        say(f"{part or 'all'}: {len(fitting)} arrays from {stored_part or 'all'} of {run}{left}")
    new = sorted(path for path in needed.keys() - taken.keys() if f"params/{path}" not in given)
    if new:
        say(f"new: {len(new)} arrays, {', '.join(new[:3])}{', ...' if len(new) > 3 else ''}")
    return {f"params/{path}": leaf for path, leaf in taken.items()}


def parameters_below(run: Path, part: str) -> dict[str, Any]:
    """Returns the best parameters of a run whose paths start with a part, by the rest of the path."""
    leaves: Any = flatten_dict(best_parameters(run)["params"], sep="/")
    if not part:
        return leaves
    return {path.removeprefix(f"{part}/"): leaf for path, leaf in leaves.items() if path.startswith(f"{part}/")}


def join(part: str, rest: str) -> str:
    return f"{part}/{rest}" if part else rest


def quoted(part: str) -> str:
    return f"the part {part!r}" if part else "the model"
