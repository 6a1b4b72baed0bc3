"""Pruning by magnitude: the smallest weights, or the attention heads with the smallest weights, become zero."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab.layers.axes import AxesByPath
from seqlab.parametrizations.parametrization import select_matrices
from seqlab.runs.base import without_base
from seqlab.runs.derived import load_matrices, write_run
from seqlab.runs.parameters import axes_of
from seqlab.system.checks import check_pattern
from seqlab.system.errors import SeqlabError
from seqlab.system.files import check_new

Matrices = Mapping[str, np.ndarray]  # by path


class Zeros(NamedTuple):
    """The zeros in the matrices of a kind, such as "query/kernel"."""

    kind: str
    matrices: int
    weights: int
    zeros: int


def prune(
    run: Path, out: Path, share: float, pattern: str, per_matrix: bool = False, heads: bool = False
) -> list[Zeros]:
    """Writes the run `out`: the best checkpoint of `run`, in whose matrices this share of the weights, or of the
    attention heads, is zero. `pattern` selects the matrices.

    With `per_matrix`, the share holds for each matrix, or for the heads of each attention layer. The new run has no
    parametrization. Returns the zeros of the selected matrices by kind. Raises `SeqlabError` if no weight changes.
    """
    if not 0 < share < 1:
        raise SeqlabError(f"--share must be above 0 and below 1, not {share}")
    check_pattern("--pattern", pattern)
    check_new(out)
    loaded = load_matrices(run)
    base: dict[str, Any] = flatten_dict(loaded.params, sep="/")  # pyright: ignore[reportAssignmentType]
    matrices = select_matrices(base, pattern)
    if heads:
        pruned = prune_heads(matrices, head_axes(matrices, axes_of(loaded.experiment.model)), share, per_matrix)
    else:
        pruned = prune_weights(matrices, share, per_matrix)
    if all(np.array_equal(matrices[path], matrix) for path, matrix in pruned.items()):
        part = "heads" if heads else "weights"
        raise SeqlabError(
            f"{run}: no weight would change, since the share {share:g} of the {part} is already zero, or less than "
            "one: choose a larger --share"
        )
    params = unflatten_dict({**base, **pruned}, sep="/")
    experiment = dataclasses.replace(without_base(loaded.experiment), parametrization=None)
    write_run(run, out, experiment, params, "pruned", [loaded.step])
    return count_zeros(pruned)


def prune_weights(matrices: Matrices, share: float, per_matrix: bool) -> dict[str, np.ndarray]:
    """Returns matrices in which the smallest weights are zero: this share of each, or of all together (Han et al.
    2015).
    """
    limits = thresholds({path: np.abs(matrix) for path, matrix in matrices.items()}, share, per_matrix)
    return {path: np.where(np.abs(matrix) > limits[path], matrix, 0) for path, matrix in matrices.items()}


def prune_heads(matrices: Matrices, axes: Mapping[str, int], share: float, per_layer: bool) -> dict[str, np.ndarray]:
    """Returns the matrices of attention in which this share of the heads is zero: those with the smallest mean
    magnitude of their weights. `axes` has the axis of the heads of each matrix.
    """
    layers = defaultdict(list)  # for each attention layer, the weights [H N] of its matrices
    for path, axis in axes.items():
        weights = np.moveaxis(matrices[path], axis, 0)
        layers[layer_of(path)].append(weights.reshape(len(weights), -1))
    magnitudes = {layer: np.abs(np.concatenate(parts, axis=1)).mean(axis=1) for layer, parts in layers.items()}
    limits = thresholds(magnitudes, share, per_layer)
    pruned = {}
    for path, axis in axes.items():
        remains = magnitudes[layer_of(path)] > limits[layer_of(path)]
        shape = [-1 if i == axis else 1 for i in range(matrices[path].ndim)]
        pruned[path] = np.where(remains.reshape(shape), matrices[path], 0)
    return pruned


def thresholds(magnitudes: Matrices, share: float, separate: bool) -> dict[str, float]:
    """Returns the threshold of each array: entries of at most this magnitude become zero. If `separate`, the share is
    that of each array, otherwise that of all arrays together.
    """
    if separate:
        return {name: threshold(values.ravel(), share) for name, values in magnitudes.items()}
    return dict.fromkeys(magnitudes, threshold(np.concatenate([x.ravel() for x in magnitudes.values()]), share))


def threshold(magnitudes: np.ndarray, share: float) -> float:
    """Returns the largest of the floor(share N) smallest magnitudes [N], or -1 if there are none."""
    count = math.floor(share * len(magnitudes) + 1e-9)
    return float(np.partition(magnitudes, count - 1)[count - 1]) if count else -1.0


def head_axes(matrices: Matrices, axes: AxesByPath) -> dict[str, int]:
    """Returns the axis of the attention heads of each matrix that has one. Raises `SeqlabError` if there is none."""
    names = {
        path: axes[path.removeprefix("params/")].names for path in matrices if path.removeprefix("params/") in axes
    }
    head_axis = {path: axis_names.index("heads") for path, axis_names in names.items() if "heads" in axis_names}
    if not head_axis:
        raise SeqlabError("the selected matrices of this model have no attention heads: leave out --heads")
    return head_axis


def layer_of(path: str) -> str:
    """Returns the path of the attention layer of a matrix, without, for example, "query/kernel"."""
    return path.rsplit("/", 2)[0]


def count_zeros(matrices: Matrices) -> list[Zeros]:
    """Returns the zeros of matrices by kind: the last two parts of their paths."""
    kinds = defaultdict(list)
    for path, matrix in matrices.items():
        kinds["/".join(path.split("/")[-2:])].append(matrix)
    return [
        Zeros(kind, len(group), sum(x.size for x in group), sum(int((x == 0).sum()) for x in group))
        for kind, group in sorted(kinds.items())
    ]


def total(kinds: list[Zeros]) -> Zeros:
    """Returns the zeros of all kinds."""
    return Zeros("all", *(sum(numbers) for numbers in zip(*(counts for _, *counts in kinds), strict=True)))
