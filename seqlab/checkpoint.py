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
import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqlab.errors import SeqlabError
from seqlab.files import read_json, write_atomically
from seqlab.hosts import is_first, wait_for_all

MANIFEST = "manifest.json"


def checkpoint_steps(run: Path) -> list[int]:
    """Steps with a manifest, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and (p / MANIFEST).exists())


def read_manifest(run: Path, step: int) -> dict[str, Any]:
    """Raises `SeqlabError` for one that is not as it was written."""
    path = run / "checkpoints" / str(step) / MANIFEST
    manifest = read_json(path)
    if manifest.pop("sha256", None) != _digest_of_manifest(manifest) or manifest["step"] != step:
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
    found, expected = _hash_files(folder / "state"), manifest["files"]
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


def choose_step(run: Path, which: str = "best") -> int:
    """The step that "best", "last" or a number names. Raises `SeqlabError` if there is none."""
    steps = checkpoint_steps(run)
    if not steps:
        raise SeqlabError(f"{run}: no checkpoint; train it first with `seqlab train CONFIG --out {run}`")
    if which == "last":
        return steps[-1]
    if which == "best":
        best = read_manifest(run, steps[-1])["progress"].get("best_step")
        return best if best in steps else steps[-1]
    if which.isdecimal() and int(which) in steps:
        return int(which)
    raise SeqlabError(f"{run}: no checkpoint {which!r}: best, last or one of {', '.join(map(str, steps))}")


def restore(run: Path, step: int, like: Any = None) -> Any:
    """The tree saved at `step`, verified against its manifest first.

    `like`, a tree of arrays, gives the structure, and for leaves that lie on devices where they go; without it nested
    dicts come back. Other leaves are NumPy arrays. Raises `SeqlabError` for damaged files.
    """
    try:
        verify(run, step)
    except SeqlabError as error:
        others = [str(other) for other in checkpoint_steps(run) if other != step]
        raise SeqlabError(f"{error}; others here: {', '.join(others) or 'none'}") from None
    return load_tree(run, step, like)


def load_tree(run: Path, step: int, like: Any = None) -> Any:
    """`restore` of what has been verified."""
    import orbax.checkpoint as ocp

    folder = (run / "checkpoints" / str(step)).resolve()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        if like is None:
            shapes = dict(checkpointer.metadata(folder / "state").item_metadata.tree)
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
            return checkpointer.restore(folder / "state", args=ocp.args.PyTreeRestore(restore_args=kinds))

        def kind(x: Any) -> Any:
            if isinstance(x, jax.Array):
                return ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=x.sharding, global_shape=x.shape)
            return ocp.RestoreArgs(restore_type=np.ndarray)

        kinds = jax.tree.map(kind, like)
        return checkpointer.restore(folder / "state", args=ocp.args.PyTreeRestore(item=like, restore_args=kinds))


def _hash_files(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {}
    for path in files:
        with path.open("rb") as stream:
            hashes[str(path.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


_copied = jax.jit(jnp.copy)  # of an array that lies on devices of several processes too


class Saver:
    """Writes checkpoints in the background, one at a time; keeps the last `keep` of them and the best.

    One that cannot be written, for a full disk say, is told loudly, and `owed`: the caller saves again, later. Among
    several processes, where the others would wait for the one that failed, it is an error instead.
    """

    def __init__(self, run: Path, keep: int, say: Callable[[str], None] = print):
        import orbax.checkpoint as ocp

        self.run, self.keep, self.say = run, max(keep, 1), say
        self.checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
        self.background = ThreadPoolExecutor(1)
        self.pending: list[Future[None]] = []
        self.owed = False

    def save(self, state: Any, step: int, progress: dict[str, Any]) -> None:
        """Starts to write; returns once the state may change. Waits for the save before."""
        import orbax.checkpoint as ocp

        self.wait()
        target = (self.run / "checkpoints" / str(step)).resolve()
        # A copy, for the next step takes the buffers of `state` for its own results.
        copy = jax.tree.map(lambda x: _copied(x) if isinstance(x, jax.Array) else np.array(x), state)
        self.owed = False
        try:
            if is_first():
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir(parents=True)
            wait_for_all()
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
                self._prune(progress)
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
            self._prune(progress)
        except OSError as error:
            self._failed(step, error)

    def _prune(self, progress: dict[str, Any]) -> None:
        kept = {*checkpoint_steps(self.run)[-self.keep :], progress.get("best_step")}
        for path in (self.run / "checkpoints").iterdir():
            if path.name.isdecimal() and int(path.name) not in kept:
                # The manifest first: whatever is left after a crash in between does not exist.
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)

    def _failed(self, step: int, error: Exception) -> None:
        if jax.process_count() > 1:
            raise SeqlabError(f"{self.run}: the checkpoint of step {step} could not be written: {error}") from error
        self.owed = True
        target = self.run / "checkpoints" / str(step)
        if not (target / MANIFEST).exists():
            shutil.rmtree(target, ignore_errors=True)  # room for the next try
        reason = str(error).strip().splitlines()[0]
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
