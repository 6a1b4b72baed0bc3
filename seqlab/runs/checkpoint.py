"""The run directory and its checkpoints.

    RUN/experiment.json              the resolved experiment
    RUN/tokenizer.model              (or one a column)
    RUN/metrics.jsonl                a line each time the log is written
    RUN/curve.png  RUN/tensorboard/  the same, to look at
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
    """The tree saved at `step`, verified against its manifest first.

    `like`, a tree of arrays or shapes, gives the structure, and for leaves that lie on devices where they go; without
    it nested dicts come back. Other leaves are NumPy arrays. `check` is given the tree of what the files say they
    hold (with `shape` and `dtype`) before anything of that size is made. Raises `SeqlabError` for damaged files, and
    for more than the machine's memory.
    """
    try:
        verify(run, step)
    except SeqlabError as error:
        others = [str(other) for other in checkpoint_steps(run) if other != step]
        raise SeqlabError(f"{error}; others here: {', '.join(others) or 'none'}") from None
    return load_tree(run, step, like, check)


def load_tree(run: Path, step: int, like: Any = None, check: Callable[[Any], None] = lambda declared: None) -> Any:
    """`restore` of what has been verified."""
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
    except Exception as error:  # whatever is made of files that are as their manifest says, and yet no checkpoint
        reason = str(error).partition("\n")[0]
        raise SeqlabError(f"{folder}: no checkpoint that could be read ({reason}); remove this folder") from error


def restored_as(x: Any) -> Any:
    """What Orbax is told of a leaf: where on the devices it goes, or that it is to be a NumPy array."""
    import orbax.checkpoint as ocp

    if isinstance(x, jax.Array | jax.ShapeDtypeStruct) and x.sharding is not None:
        return ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=x.sharding, global_shape=x.shape)
    return ocp.RestoreArgs(restore_type=np.ndarray)


def check_declared(declared: Any, folder: Path) -> None:
    """Raises where leaves are no arrays, or are together larger than the machine's memory."""
    leaves = jax.tree.leaves(declared)
    if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
        raise SeqlabError(f"{folder}: no checkpoint: it holds other things than arrays")
    claimed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if claimed > memory:
        raise SeqlabError(f"{folder}: {claimed:,} bytes of arrays, and this machine has {memory:,} of memory")


def check_shapes(declared: Any, wanted: Any, folder: Path) -> None:
    """Raises where the arrays of `declared` are not those of `wanted`: names, shapes and types."""
    held, expected = (
        {jax.tree_util.keystr(path): (np.dtype(x.dtype).name, tuple(x.shape)) for path, x in leaves}
        for leaves in (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (declared, wanted))
    )
    name = next((name for name in {**expected, **held} if held.get(name) != expected.get(name)), None)
    if name is not None:
        here, there = (" ".join(map(str, tree.get(name, ("missing",)))) for tree in (held, expected))
        raise SeqlabError(f"{folder}: the array {name} is {here}, and its experiment's model has {there}")


def silence_orbax() -> None:
    """Silences Orbax's own log messages: seqlab reports its failures as errors of one line."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logger = logging.getLogger("absl")
    if _not_of_orbax not in logger.filters:
        logger.addFilter(_not_of_orbax)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def saved_tree(state: Any) -> dict[str, Any]:
    """What of a `TrainState` goes into a checkpoint; empty branches are left out, since Orbax stores none."""
    tree = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: branch for name, branch in tree.items() if jax.tree.leaves(branch)}


def parameters_of(tree: dict[str, Any]) -> Any:
    """What a checkpoint is validated and decoded with: the moving average of its parameters, if it has one."""
    return tree.get("average", tree["params"])


def fingerprint(run: Path, step: int) -> str:
    """SHA-256 over parameters, optimizer state, carry and step: paths in order, dtype, shape, little-endian bytes."""
    tree = restore(run, step)
    tree.pop("sums", None)
    return digest_of(tree)


def average(run: Path, last: int) -> tuple[Any, list[int]]:
    """The mean of the parameters of the last `last` checkpoints, and their steps."""
    steps = checkpoint_steps(run)[-last:]
    if last < 1 or len(steps) < last:
        raise SeqlabError(f"{run}: {len(steps)} checkpoints, so not {last} to average; see checkpoints.last")
    trees = [parameters_of(restore(run, step)) for step in steps]
    mean = jax.tree.map(
        lambda *leaves: np.mean(np.stack(leaves), axis=0, dtype=np.float64).astype(leaves[0].dtype), *trees
    )
    return mean, steps
