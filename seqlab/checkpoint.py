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

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqlab.errors import SeqlabError, advised
from seqlab.files import write_atomically
from seqlab.hosts import by_the_first, is_first
from seqlab.untrusted import fits, inside, plain_files, read_json

MANIFEST = "manifest.json"
BESIDE = 1 << 20  # bytes: room for what Orbax writes beside the arrays, and for the log
STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # the name of a checkpoint's folder


def checkpoint_steps(run: Path) -> list[int]:
    """Steps with a manifest, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if STEP.fullmatch(p.name) and (p / MANIFEST).exists())


def read_manifest(run: Path, step: int) -> dict[str, Any]:
    """Raises `SeqlabError` for one that is not as it was written."""
    path = inside(run / "checkpoints", f"{step}/{MANIFEST}")
    manifest = read_json(path, dict[str, Any])
    digest = manifest.pop("sha256", None)
    check_manifest(manifest, step, run)
    if digest != _digest_of_manifest(manifest):
        raise SeqlabError(f"{path}: damaged: not as it was written")
    return manifest


def write_manifest(run: Path, step: int, progress: dict[str, Any], files: dict[str, str]) -> None:
    manifest = {"step": step, "progress": progress, "files": files}
    content = {**manifest, "sha256": _digest_of_manifest(manifest)}
    write_atomically(run / "checkpoints" / str(step) / MANIFEST, json.dumps(content, indent=1))


def _digest_of_manifest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def verify(run: Path, step: int) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all as it says. Raises `SeqlabError` for another."""
    folder, manifest = run / "checkpoints" / str(step), read_manifest(run, step)
    try:
        found, expected = _hash_files(folder / "state"), manifest["files"]
    except OSError as error:
        raise SeqlabError(f"{folder}: cannot be read: {error}") from None
    if found != expected:
        bad = min(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise SeqlabError(f"{folder}: damaged: {bad} is not as it was written")
    return manifest


def newest_whole(run: Path, say: Callable[[str], None]) -> int | None:
    """The newest checkpoint that is as it was written; those passed over are told. None: there is none.

    Raises `SeqlabError` where all there are are damaged.
    """
    steps = checkpoint_steps(run)
    for step in reversed(steps):
        try:
            verify(run, step)
            return step
        except SeqlabError as error:
            say(f"CHECKPOINT {step} IS PASSED OVER: {error}")
    if steps:
        raise SeqlabError(f"{run}: no checkpoint is whole: remove {run / 'checkpoints'} to train from the beginning")
    return None


def check_manifest(manifest: Any, step: int, run: Path) -> dict[str, Any]:
    """The manifest, if it has the form of one and is of this step. Raises `SeqlabError` otherwise."""
    wanted = {"step": int, "progress": dict[str, Any], "files": dict[str, str]}
    sound = fits(manifest, dict[str, Any]) and all(fits(manifest.get(name), kind) for name, kind in wanted.items())
    if not sound or manifest["step"] != step:
        folder = run / "checkpoints" / str(step)
        raise SeqlabError(f"{folder / MANIFEST}: no manifest of step {step}; remove {folder}")
    return manifest


def choose_step(run: Path, which: str = "best") -> int:
    """The step that "best", "last" or a number names. Raises `SeqlabError` if there is none."""
    steps = checkpoint_steps(run)
    if not steps:
        raise SeqlabError(f"{run}: no checkpoint; train it first with `seqlab train CONFIG --out {run}`")
    if which == "last":
        return steps[-1]
    if which == "best":
        with advised(f"choose another by its number: {', '.join(map(str, steps[:-1])) or 'none'}"):
            best = read_manifest(run, steps[-1])["progress"].get("best_step")
        if best not in [None, *steps]:  # whatever a manifest holds
            raise SeqlabError(
                f"{run}: the best checkpoint, {best}, is not there; take last or one of {', '.join(map(str, steps))}"
            )
        return steps[-1] if best is None else best
    if which.isdecimal() and int(which) in steps:
        return int(which)
    raise SeqlabError(f"{run}: no checkpoint {which!r}: best, last or one of {', '.join(map(str, steps))}")


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


def _hash_files(folder: Path) -> dict[str, str]:
    hashes = {}
    for path in plain_files(folder):
        with path.open("rb") as stream:
            hashes[str(path.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def silence_orbax() -> None:
    """Silences Orbax's own log messages: seqlab reports its failures as errors of one line."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logger = logging.getLogger("absl")
    if _not_of_orbax not in logger.filters:
        logger.addFilter(_not_of_orbax)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def new_checkpointer() -> Any:
    import orbax.checkpoint as ocp

    silence_orbax()
    return ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())


_copied = jax.jit(jnp.copy)  # of an array that lies on devices of several processes too


class Saver:
    """Writes checkpoints in the background, one at a time; keeps the last `keep` of them and the best.

    One that cannot be written, for a full disk say, is told loudly, and `owed`: the caller saves again, later. Among
    several processes that is found out before they write; later it is an error, for the others would wait for the one
    that failed.
    """

    def __init__(self, run: Path, keep: int, say: Callable[[str], None] = print):
        self.run, self.keep, self.say = run, max(keep, 1), say
        self.checkpointer = new_checkpointer()
        self.background = ThreadPoolExecutor(1)
        self.pending: list[Future[None]] = []
        self.written: int | None = None  # the last step that is whole
        self.owed = ""  # the reason

    def save(self, state: Any, step: int, progress: dict[str, Any]) -> None:
        """Starts to write; returns once the state may change. Waits for the save before."""
        import orbax.checkpoint as ocp

        self.wait()
        self.owed = ""
        if step == self.written:  # what is owed is its manifest
            return self.amend(step, progress)
        target = (self.run / "checkpoints" / str(step)).resolve()
        # A copy, for the next step takes the buffers of `state` for its own results.
        copy = jax.tree.map(lambda x: _copied(x) if isinstance(x, jax.Array) else np.array(x), state)
        reason = by_the_first(lambda: _make_room(target, sum(x.nbytes for x in jax.tree.leaves(copy))))
        if reason:
            return self._owe(step, reason)
        try:
            self.checkpointer.save(target / "state", args=ocp.args.PyTreeSave(copy))
        except Exception as error:
            self._failed(step, error)
        else:
            self.pending.append(self.background.submit(self._finish, step, dict(progress)))

    def _finish(self, step: int, progress: dict[str, Any]) -> None:
        target = self.run / "checkpoints" / str(step)
        try:
            self.checkpointer.wait_until_finished()
            if is_first():
                write_manifest(self.run, step, progress, _hash_files(target / "state"))
                self.written = step
                self._prune(step, progress)
        except Exception as error:
            self._failed(step, error)

    def amend(self, step: int, progress: dict[str, Any]) -> None:
        """Has the checkpoint of `step` tell of other progress, once it is written."""
        self.pending.append(self.background.submit(self._amend, step, dict(progress)))

    def _amend(self, step: int, progress: dict[str, Any]) -> None:
        if not is_first() or step not in checkpoint_steps(self.run):  # it could not be written
            return
        try:
            write_manifest(self.run, step, progress, read_manifest(self.run, step)["files"])
            self._prune(step, progress)
        except OSError as error:
            self._failed(step, error)

    def _prune(self, step: int, progress: dict[str, Any]) -> None:
        """Those of later steps go too: they were passed over, so they are damaged."""
        steps = [one for one in checkpoint_steps(self.run) if one <= step]
        kept = {*steps[-self.keep :], progress.get("best_step")}
        for path in (self.run / "checkpoints").iterdir():
            if STEP.fullmatch(path.name) and int(path.name) not in kept:
                _remove(path)

    def _failed(self, step: int, error: Exception) -> None:
        if jax.process_count() > 1:
            raise SeqlabError(f"{self.run}: the checkpoint of step {step} could not be written: {error}") from error
        with contextlib.suppress(Exception):
            self.checkpointer.close()
        self.checkpointer = new_checkpointer()  # the old one would tell its error again at the next save
        self._owe(step, (str(error).strip() or repr(error)).splitlines()[0])

    def _owe(self, step: int, reason: str) -> None:
        self.owed = reason
        target = self.run / "checkpoints" / str(step)
        if not (target / MANIFEST).exists():
            shutil.rmtree(target, ignore_errors=True)  # room for the next try
        self.say(f"THE CHECKPOINT OF STEP {step} COULD NOT BE WRITTEN, and training goes on: {reason}")

    def wait(self) -> None:
        """Returns when nothing is being written."""
        pending, self.pending = self.pending, []
        for one in pending:
            one.result()

    def close(self) -> None:
        self.wait()
        self.background.shutdown()
        self.checkpointer.close()


def save_alone(run: Path, state: Any, step: int, progress: dict[str, Any]) -> None:
    """Writes the one checkpoint of a run. Raises `SeqlabError` where that fails."""
    saver = Saver(run, 1, lambda line: None)
    saver.save(state, step, progress)
    saver.close()
    if saver.owed:
        raise SeqlabError(f"{run}: its checkpoint could not be written: {saver.owed}")


def _make_room(checkpoint: Path, size: int) -> str:
    """An empty folder for a checkpoint of so many bytes. Returns why there can be none, or nothing."""
    try:
        _remove(checkpoint)
        checkpoint.mkdir(parents=True)
        free = shutil.disk_usage(checkpoint).free
    except OSError as error:
        return str(error)
    wanted = size + BESIDE
    return "" if wanted <= free else f"{wanted:,} bytes are wanted, and the disk has {free:,} left"


def _remove(checkpoint: Path) -> None:
    """The manifest first: whatever is left after a crash in between does not exist."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


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


def digest_of(tree: Any) -> str:
    """SHA-256 over the leaves of a tree: paths in order, dtype, shape, little-endian bytes."""
    digest = hashlib.sha256()
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for name, leaf in sorted(
        ((jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves), key=lambda x: x[0]
    ):
        little = leaf.astype(leaf.dtype.newbyteorder("<")) if leaf.dtype.byteorder == ">" else leaf
        digest.update(f"{name} {leaf.dtype.name} {leaf.shape}\n".encode() + little.tobytes())
    return digest.hexdigest()


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
