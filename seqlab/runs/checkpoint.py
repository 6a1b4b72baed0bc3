"""Reading of checkpoints, in the folder of a run.

    RUN/experiment.json              the resolved experiment
    RUN/codecs/source+target.sentencepiece  (one file for each codec, named after its columns)
    RUN/metrics.jsonl                the log
    RUN/curve.png  RUN/tensorboard/  plots of the log
    RUN/checkpoints/STEP/state/      parameters, optimizer, carry, sums and step, written by Orbax
    RUN/checkpoints/STEP/manifest.json

The manifest holds the SHA-256 of every file of the state, the progress of training (cursor, best score), and its own
SHA-256. It is written last, by rename: a step without a manifest does not exist.
"""

import dataclasses
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqlab.runs.manifest import checkpoint_steps, verify
from seqlab.system.digests import digest_of
from seqlab.system.errors import SeqlabError


def restore(run: Path, step: int, like: Any = None, check: Callable[[Any], None] = lambda declared: None) -> Any:
    """Returns the tree saved at `step`, after verifying its files against the manifest.

    `like`, a tree of arrays or shapes, gives the structure, and the sharding of leaves on devices; without it the
    result is nested dicts. Other leaves are NumPy arrays. `check` receives the tree that the files declare (leaves
    with `shape` and `dtype`) before any array is read. Raises `SeqlabError` for damaged files, and for more arrays
    than the memory of the machine holds.
    """
    try:
        verify(run, step)
    except SeqlabError as error:
        other_steps = [str(saved) for saved in checkpoint_steps(run) if saved != step]
        raise SeqlabError(f"{error}; others here: {', '.join(other_steps) or 'none'}") from None
    return load_tree(run, step, like, check)


def load_tree(run: Path, step: int, like: Any = None, check: Callable[[Any], None] = lambda declared: None) -> Any:
    """Returns the tree saved at `step` as `restore` does, without verifying its files."""
    import orbax.checkpoint as ocp

    silence_orbax()
    folder = (run / "checkpoints" / str(step)).resolve()
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            declared = dict(checkpointer.metadata(folder / "state").item_metadata.tree)
            check_declared(declared, folder)
            check(declared)
            kinds = jax.tree.map(restored_as, declared if like is None else like)
            return checkpointer.restore(folder / "state", args=ocp.args.PyTreeRestore(item=like, restore_args=kinds))
    except SeqlabError:
        raise
    except Exception as error:  # Orbax raises many kinds for files that match their manifest and are no checkpoint
        reason = str(error).partition("\n")[0]
        raise SeqlabError(f"{folder}: no checkpoint that could be read ({reason}); remove this folder") from error


def restored_as(x: Any) -> Any:
    """Returns how Orbax restores a leaf: onto the devices of its sharding, or as a NumPy array."""
    import orbax.checkpoint as ocp

    if isinstance(x, jax.Array | jax.ShapeDtypeStruct) and x.sharding is not None:
        return ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=x.sharding, global_shape=x.shape)
    return ocp.RestoreArgs(restore_type=np.ndarray)


def check_declared(declared: Any, folder: Path) -> None:
    """Raises `SeqlabError` where a leaf is not an array, or all are larger than the memory of the machine."""
    leaves = jax.tree.leaves(declared)
    if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
        raise SeqlabError(f"{folder}: no checkpoint: it holds other things than arrays")
    claimed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if claimed > memory:
        raise SeqlabError(f"{folder}: {claimed:,} bytes of arrays, and this machine has {memory:,} of memory")


def check_shapes(declared: Any, expected: Any, folder: Path) -> None:
    """Raises `SeqlabError` where `declared` has arrays of other names, shapes or types than `expected`."""
    difference = first_different_leaf(expected, declared, lambda x: (np.dtype(x.dtype).name, tuple(x.shape)))
    if difference is not None:
        name, *leaves = difference
        needed, actual = (" ".join(map(str, leaf or ("missing",))) for leaf in leaves)
        raise SeqlabError(f"{folder}: the array {name} is {actual}, and its experiment's model has {needed}")


def first_different_leaf(
    first: Any, second: Any, describe: Callable[[Any], tuple[Any, ...]]
) -> tuple[str, tuple[Any, ...] | None, tuple[Any, ...] | None] | None:
    """Returns the path of the first leaf that `describe` says other things of in two trees, and what it says of both
    (None: that tree has no such leaf); or None for trees without a difference.
    """
    ours, theirs = (
        {jax.tree_util.keystr(path): describe(x) for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}
        for tree in (first, second)
    )
    return next(
        ((name, ours.get(name), theirs.get(name)) for name in (ours | theirs) if ours.get(name) != theirs.get(name)),
        None,
    )


def silence_orbax() -> None:
    """Silences the log messages of Orbax. Its failures are reported as errors of one line."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logger = logging.getLogger("absl")
    if _is_not_from_orbax not in logger.filters:
        logger.addFilter(_is_not_from_orbax)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def saved_tree(state: Any) -> dict[str, Any]:
    """Returns the tree of a `TrainState` that a checkpoint stores, without empty branches: Orbax stores none."""
    tree = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: branch for name, branch in tree.items() if jax.tree.leaves(branch)}


def parameters_of(tree: dict[str, Any]) -> Any:
    """Returns the parameters to validate and decode with: the moving average, if the checkpoint has one."""
    return tree.get("average", tree["params"])


def fingerprint(run: Path, step: int) -> str:
    """Returns the SHA-256 of parameters, optimizer state, carry and step: paths in order, types, shapes, bytes."""
    tree = restore(run, step)
    tree.pop("sums", None)
    return digest_of(tree)
