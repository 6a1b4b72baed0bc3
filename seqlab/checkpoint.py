"""The run directory and its checkpoints.

    RUN/experiment.json              the resolved experiment
    RUN/tokenizer.model              (or one a column)
    RUN/metrics.jsonl                a line each time the log is written
    RUN/curve.png  RUN/tensorboard/  the same, to look at
    RUN/checkpoints/STEP/state/      parameters, optimizer, carry, sums and step, written by Orbax
    RUN/checkpoints/STEP/manifest.json

The manifest holds the SHA-256 of every file of the state and the progress of training (cursor, best score).
It is written last, by rename: a step without a manifest does not exist.
"""

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqlab.errors import SeqlabError
from seqlab.files import write_atomically

MANIFEST = "manifest.json"


def checkpoint_steps(run: Path) -> list[int]:
    """Steps with a manifest, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and (p / MANIFEST).exists())


def read_manifest(run: Path, step: int) -> dict[str, Any]:
    return json.loads((run / "checkpoints" / str(step) / MANIFEST).read_text())


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

    `like`, a tree of arrays or shapes, gives the structure; without it nested dicts come back, with NumPy leaves.
    Raises `SeqlabError` for damaged files.
    """
    import orbax.checkpoint as ocp

    folder = (run / "checkpoints" / str(step)).resolve()
    expected = read_manifest(run, step)["files"]
    found = _hash_files(folder / "state")
    if found != expected:
        bad = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise SeqlabError(f"{folder}: damaged ({bad[0]}); remove this folder to go on from an earlier checkpoint")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        if like is None:
            like = jax.tree.map(lambda _: 0, dict(checkpointer.metadata(folder / "state").item_metadata.tree))
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
            return checkpointer.restore(folder / "state", args=ocp.args.PyTreeRestore(restore_args=kinds))
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        return checkpointer.restore(folder / "state", args=ocp.args.PyTreeRestore(item=like, restore_args=kinds))


def _hash_files(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {}
    for path in files:
        with path.open("rb") as stream:
            hashes[str(path.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


class Saver:
    """Writes checkpoints in the background, one at a time; keeps the last `keep` of them and the best."""

    def __init__(self, run: Path, keep: int):
        import orbax.checkpoint as ocp

        self.folder = (run / "checkpoints").resolve()
        self.run, self.keep = run, max(keep, 1)
        self.checkpointer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
        self.pending: threading.Thread | None = None
        self.failure: BaseException | None = None

    def save(self, state: Any, step: int, progress: dict[str, Any]) -> None:
        """Starts to write; returns once the state may change. Waits for the save before."""
        import orbax.checkpoint as ocp

        self.wait()
        target = self.folder / str(step)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        # A copy, for the next step takes the buffers of `state` for its own results.
        self.checkpointer.save(target / "state", args=ocp.args.PyTreeSave(jax.tree.map(jnp.array, state)))
        self.pending = threading.Thread(target=self._finish, args=(target, step, progress))
        self.pending.start()

    def _finish(self, target: Path, step: int, progress: dict[str, Any]) -> None:
        try:
            self.checkpointer.wait_until_finished()
            manifest = {"step": step, "progress": progress, "files": _hash_files(target / "state")}
            write_atomically(target / MANIFEST, json.dumps(manifest, indent=1))
            kept = {*checkpoint_steps(self.run)[-self.keep :], progress.get("best_step")}
            for path in self.folder.iterdir():
                if path.name.isdecimal() and int(path.name) not in kept:
                    # The manifest first: whatever is left after a crash in between does not exist.
                    (path / MANIFEST).unlink(missing_ok=True)
                    shutil.rmtree(path, ignore_errors=True)
        except BaseException as error:
            self.failure = error

    def wait(self) -> None:
        """Returns when nothing is being written; raises what went wrong in the background."""
        if self.pending is not None:
            self.pending.join()
            self.pending = None
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise SeqlabError(f"{self.folder}: a checkpoint could not be written: {failure}") from failure

    def close(self) -> None:
        self.wait()
        self.checkpointer.close()


def saved_tree(state: Any) -> dict[str, Any]:
    """What of a `TrainState` goes into a checkpoint; empty branches are left out, since Orbax stores none."""
    tree = {"step": state.step, "params": state.params, "optimizer": state.optimizer, "sums": state.sums}
    return {**tree, "carry": state.carry} if jax.tree.leaves(state.carry) else tree


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
    trees = [restore(run, step)["params"] for step in steps]
    mean = jax.tree.map(
        lambda *leaves: np.mean(np.stack(leaves), axis=0, dtype=np.float64).astype(leaves[0].dtype), *trees
    )
    return mean, steps
