"""Reading of checkpoints in the folder of a run.

    RUN/experiment.json              the resolved experiment
    RUN/codecs/source+target.sentencepiece  (one file for each codec, named after its columns)
    RUN/metrics.jsonl                the log
    RUN/curve.png  RUN/tensorboard/  plots of the log
    RUN/checkpoints/STEP/state/      parameters, optimizer, carry, sums and step, written by Orbax
    RUN/checkpoints/STEP/manifest.json

The manifest has the SHA-256 of every file of the state, the progress of training (data position, best score) and its
own SHA-256. It is written last, by rename: a step without a manifest does not count as a checkpoint.
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

from seqlab.runs.manifest import checkpoint_steps, read_manifest, verify
from seqlab.system.digests import digest_of
from seqlab.system.errors import SeqlabError


def restore(run: Path, step: int, like: Any = None, check: Callable[[Any], None] = lambda declared: None) -> Any:
    """Returns the tree saved at `step`, after verifying its files against the manifest.

    `like`, a tree of arrays or shapes, defines the structure of the result and the sharding of leaves on devices; the
    other leaves are NumPy arrays. Without it the result is nested dicts of NumPy arrays. `check` receives the
    declared tree (leaves with `shape` and `dtype`) before any array is read. Raises `SeqlabError` if files are
    damaged or the arrays exceed the memory of the machine.
    """
    try:
        verify(run, step)
    except SeqlabError as error:
        others = " or ".join(str(saved) for saved in checkpoint_steps(run) if saved != step)
        remedy = f"or choose --checkpoint {others}" if others else "the run has no other checkpoint"
        raise SeqlabError(f"{error}; {remedy}") from None
    return load_tree(run, step, like, check)


def load_tree(run: Path, step: int, like: Any = None, check: Callable[[Any], None] = lambda declared: None) -> Any:
    """Like `restore`, but does not verify the files."""
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
    except Exception as error:  # for malformed files that match their manifest, Orbax raises many types of errors
        raise SeqlabError(
            f"{folder}: the checkpoint cannot be read: delete the folder, or restore it from a backup"
        ) from error


def restored_as(x: Any) -> Any:
    """Returns the Orbax arguments that restore a leaf onto the devices of its sharding, or else as a NumPy array."""
    import orbax.checkpoint as ocp

    if isinstance(x, jax.Array | jax.ShapeDtypeStruct) and x.sharding is not None:
        return ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=x.sharding, global_shape=x.shape)
    return ocp.RestoreArgs(restore_type=np.ndarray)


def check_declared(declared: Any, folder: Path) -> None:
    """Raises `SeqlabError` if a leaf is not an array, or if the arrays exceed the memory of the machine."""
    leaves = jax.tree.leaves(declared)
    if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
        raise SeqlabError(f"{folder}: not a checkpoint: it has a leaf that is not an array")
    claimed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if claimed > memory:
        raise SeqlabError(
            f"{folder}: the arrays have {claimed:,} bytes, but this machine has {memory:,} bytes of memory: use a "
            "machine with more memory"
        )


def check_shapes(declared: Any, expected: Any, folder: Path) -> None:
    """Raises `SeqlabError` if the arrays in `declared` and `expected` differ in name, shape or dtype."""
    difference = first_different_leaf(expected, declared, lambda x: (np.dtype(x.dtype).name, tuple(x.shape)))
    if difference is not None:
        name, *leaves = difference
        needed, actual = (" ".join(map(str, leaf or ("missing",))) for leaf in leaves)
        raise SeqlabError(f"{folder}: the array {name} is {actual}, but the model of the experiment has {needed}")


def first_different_leaf(
    first: Any, second: Any, describe: Callable[[Any], tuple[Any, ...]]
) -> tuple[str, tuple[Any, ...] | None, tuple[Any, ...] | None] | None:
    """Returns the path of the first leaf whose descriptions by `describe` differ between two trees, and the two
    descriptions (None for a missing leaf). Returns None if the trees do not differ.
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
    """Silences the log messages of Orbax, whose failures are reported as one-line errors."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logger = logging.getLogger("absl")
    if _is_not_from_orbax not in logger.filters:
        logger.addFilter(_is_not_from_orbax)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def saved_tree(state: Any) -> dict[str, Any]:
    """Returns a `TrainState` as the tree that a checkpoint stores, without empty branches, which Orbax omits."""
    tree = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: branch for name, branch in tree.items() if jax.tree.leaves(branch)}


def parameters_of(tree: dict[str, Any]) -> Any:
    """Returns the parameters for validation and decoding: the average, if the checkpoint has one."""
    return tree.get("average", tree["params"])


def byte_count(tree: Any) -> int:
    """Returns the number of bytes of the arrays of a tree in memory."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def checkpoint_size(run: Path, step: int) -> int:
    """Returns the number of bytes of the files of a checkpoint."""
    folder = run / "checkpoints" / str(step) / "state"
    return sum((folder / name).stat().st_size for name in read_manifest(run, step)["files"])


def fingerprint(run: Path, step: int) -> str:
    """Returns the SHA-256 of parameters, optimizer state, carry and step: sorted paths, dtypes, shapes and bytes."""
    tree = restore(run, step)
    tree.pop("sums", None)
    return digest_of(tree)
