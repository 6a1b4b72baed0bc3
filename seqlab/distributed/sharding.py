"""The sharding of parameters: the mesh axis of each dimension, derived from the axis names that layers declare.

"tensor" splits the computation of a layer: by attention heads, by hidden units of a feed-forward layer, or by words
of the vocabulary (Shoeybi et al. 2019, section 3). "fsdp" splits only the storage: a parameter is gathered where it
is used (Rajbhandari et al. 2020, section 5.3). Parameters without declared axes are replicated.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import PartitionSpec

from seqlab.layers.axes import Axes, AxesByPath

F, T = "fsdp", "tensor"
MESH_AXES = {"inputs": F, "outputs": F, "width": F, "heads": T, "hidden": T, "vocabulary": T, None: None}
SMALLEST = 2**12  # minimum number of elements that fsdp splits: gathering less than 16 KiB takes just as long


def name_of(path: Any) -> str:
    """Returns the keys of a tree path joined by "/", for example "params/decoder/stack_0/self_norm/scale"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def axes_at(name: str, axes: AxesByPath) -> Axes | None:
    """Returns the axes of a leaf: a parameter, or its moment or average, whose path ends with the same path."""
    return axes.get(name.rpartition("params/")[2])


def spec_of(name: str, shape: tuple[int, ...], axes: AxesByPath, fsdp: int, tensor: int) -> PartitionSpec:
    """Returns the spec of a leaf for mesh axes of these sizes. A dimension that is not a multiple of the size of its
    axis is not split.
    """
    declared = axes_at(name, axes)
    if declared is None or len(declared.names) != len(shape):
        return PartitionSpec()
    sizes = {F: fsdp if math.prod(shape) >= SMALLEST else 1, T: tensor, None: 1}
    on_mesh = [MESH_AXES[axis] for axis in declared.names]
    fitting = [a if sizes[a] > 1 and n % sizes[a] == 0 else None for a, n in zip(on_mesh, shape, strict=True)]
    return PartitionSpec(*fitting) if any(fitting) else PartitionSpec()


def specs(tree: Any, axes: AxesByPath, fsdp: int, tensor: int) -> Any:
    """Returns the PartitionSpecs of a tree of arrays or shapes. Optimizer moments and moving averages are sharded
    like their parameters.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: spec_of(name_of(path), x.shape, axes, fsdp, tensor), tree)


def explain(tree: Any, axes: AxesByPath, fsdp: int, tensor: int) -> Iterator[str]:
    """Yields a table of the tree: path, axis names, shape, mesh axes, MiB and MiB per device; then the totals."""
    rows, total, per_device = [("parameter", "axes", "shape", "sharded on", "MiB", "MiB per device")], 0.0, 0.0
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = name_of(path)
        spec = spec_of(name, x.shape, axes, fsdp, tensor)
        size = math.prod(x.shape) * x.dtype.itemsize / 2**20
        share = size / math.prod({F: fsdp, T: tensor}[axis] for axis in spec if axis)
        declared = axes_at(name, axes)
        names = "not declared" if declared is None else " ".join(axis or "-" for axis in declared.names)
        lies = " x ".join(axis or "-" for axis in spec) or "whole"
        rows.append((name, names, "x".join(map(str, x.shape)) or "-", lies, f"{size:.3f}", f"{share:.3f}"))
        total, per_device = total + size, per_device + share
    rows.append(("total", "", "", "", f"{total:.3f}", f"{per_device:.3f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [f"{cell:{width}}" for cell, width in zip(row[:4], widths[:4], strict=True)]
        right = [f"{cell:>{width}}" for cell, width in zip(row[4:], widths[4:], strict=True)]
        yield "  ".join(left + right)
