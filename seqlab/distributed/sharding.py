"""The sharding of parameters: the mesh axis of each dimension, as a pure function of a parameter's path and shape.

"tensor" splits the work of a layer: whole heads of attention, the hidden layer of a feed-forward, words of a
vocabulary (Shoeybi et al. 2019, section 3). "fsdp" splits only the storage: a parameter is gathered where it is read
(Rajbhandari et al. 2020, section 5.3). Parameters without a rule stay whole.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import PartitionSpec

F, T = "fsdp", "tensor"
SMALLEST = 2**12  # elements that fsdp splits: gathering fewer takes as long as gathering 16 KiB, and saves nothing

Axes = tuple[str | None, ...]  # of each dimension; None: whole

# By family: the end of a parameter's path, as a regular expression over whole names, and its axes. Parameters that a
# recurrent layer reads at each step stay whole: otherwise devices would wait for each other at every position.
RULES: dict[str, dict[str, Axes]] = {
    "attention": {
        r"(self|cross)_attention/(query|key|value)/kernel": (F, T, None),
        r"(self|cross)_attention/(query|key|value)/bias": (T, None),
        r"(self|cross)_attention/out/kernel": (T, None, F),
        r"(self|cross)_attention/out/bias": (None,),
    },
    "feed-forward": {
        r"(feed_forward|encoder)/inner/kernel": (F, T),
        r"(feed_forward|encoder)/inner/bias": (T,),
        r"feed_forward/outer/kernel": (T, F),
        r"feed_forward/outer/bias": (None,),
    },
    "vocabulary": {
        r"words/table": (T, F),
        r"words/output/kernel": (F, T),
        r"words/bias": (T,),
        r"words/prompts": (None, F),
    },
    "positions": {r"(where|\w*positions)/table": (None, F)},
    "answer": {r"params/output/kernel": (F, None), r"params/output/bias": (None,)},
    "recurrent": {
        r"(stack_\d+|forward_\d+|backward_\d+|layer)/input/kernel": (F, None),
        r"(stack_\d+|forward_\d+|backward_\d+|layer)/recurrent": (None, None),
        r"(stack_\d+|forward_\d+|backward_\d+|layer)/(bias|candidate_bias)": (None,),
        r"decoder/bridge/kernel": (F, None),
        r"decoder/(combine|feed)/kernel": (None, None),
        r"decoder/(bridge|combine)/bias": (None,),
    },
    "alignment": {
        r"(\w+_)?alignment/key/kernel": (F, None),
        r"(\w+_)?alignment/query/kernel": (None, None),
        r"(\w+_)?alignment/(query/bias|vector)": (None,),
        r"(pool|word_attention|sentence_attention)/hidden/kernel": (F, None),
        r"(pool|word_attention|sentence_attention)/(hidden/bias|vector)": (None,),
    },
    "convolution": {
        # Not split by "tensor": on a mesh of all three axes, XLA (jaxlib 0.10.2 and 0.12.0.1) computes the right loss
        # but wrong gradients for a convolution with split output channels.
        r"(first|second|convolution|shortcut)/kernel": (F, None),
        r"(first|second|convolution|shortcut)/(gain|bias)": (None,),
        r"(blocks_\d+/out|end|query_\d+|mix_\d+)/kernel": (F, None),
        r"(blocks_\d+/out|end|query_\d+|mix_\d+)/bias": (None,),
    },
    "norm": {r"\w+_norm/(scale|bias)": (None,)},
}


def name_of(path: Any) -> str:
    """Returns the keys of a tree's path joined by "/", for example "params/decoder/stack_0/self_norm/scale"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def rule_of(name: str) -> tuple[str, Axes] | None:
    """Returns the family and the axes of the rule for a parameter, or None."""
    for family, rules in RULES.items():
        for end, axes in rules.items():
            if re.search(f"(^|/)({end})$", name):
                return family, axes
    return None


def spec_of(name: str, shape: tuple[int, ...], fsdp: int, tensor: int) -> PartitionSpec:
    """Returns the spec of a leaf for axes of these sizes. A dimension that its axis does not divide stays whole."""
    _, axes = rule_of(name) or ("", ())
    if len(axes) != len(shape):
        return PartitionSpec()
    sizes = {F: fsdp if math.prod(shape) >= SMALLEST else 1, T: tensor, None: 1}
    fitting = [a if sizes[a] > 1 and n % sizes[a] == 0 else None for a, n in zip(axes, shape, strict=True)]
    return PartitionSpec(*fitting) if any(fitting) else PartitionSpec()


def specs(tree: Any, fsdp: int, tensor: int) -> Any:
    """Returns the PartitionSpecs of a tree of arrays or shapes. A moment of an optimizer, or a moving average, is
    sharded as its parameter, because its path has the same end.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: spec_of(name_of(path), x.shape, fsdp, tensor), tree)


def explain(tree: Any, fsdp: int, tensor: int) -> Iterator[str]:
    """Yields a table of the tree: path, family of the rule, shape, axes, MiB and MiB per device; then the totals."""
    rows, total, per_device = [("parameter", "family", "shape", "lies on", "MiB", "MiB a device")], 0.0, 0.0
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = name_of(path)
        spec = spec_of(name, x.shape, fsdp, tensor)
        size = math.prod(x.shape) * x.dtype.itemsize / 2**20
        share = size / math.prod({F: fsdp, T: tensor}[axis] for axis in spec if axis)
        family, _ = rule_of(name) or ("no rule", ())
        lies = " x ".join(axis or "-" for axis in spec) or "whole"
        rows.append((name, family, "x".join(map(str, x.shape)) or "-", lies, f"{size:.3f}", f"{share:.3f}"))
        total, per_device = total + size, per_device + share
    rows.append(("total", "", "", "", f"{total:.3f}", f"{per_device:.3f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [f"{cell:{width}}" for cell, width in zip(row[:4], widths[:4], strict=True)]
        right = [f"{cell:>{width}}" for cell, width in zip(row[4:], widths[4:], strict=True)]
        yield "  ".join(left + right)
