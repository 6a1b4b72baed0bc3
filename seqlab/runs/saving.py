"""TODO runs.saver."""

import contextlib
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqlab.distributed.hosts import is_process_zero, on_process_zero
from seqlab.runs.checkpoint import silence_orbax
from seqlab.runs.manifest import MANIFEST, STEP, _hash_files, checkpoint_steps, read_manifest, write_manifest
from seqlab.system.errors import SeqlabError

BESIDE = 1 << 20  # bytes: room for what Orbax writes beside the arrays, and for the log


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
        reason = on_process_zero(lambda: _make_room(target, sum(x.nbytes for x in jax.tree.leaves(copy))))
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
            if is_process_zero():
                write_manifest(self.run, step, progress, _hash_files(target / "state"))
                self.written = step
                self._prune(step, progress)
        except Exception as error:
            self._failed(step, error)

    def amend(self, step: int, progress: dict[str, Any]) -> None:
        """Has the checkpoint of `step` tell of other progress, once it is written."""
        self.pending.append(self.background.submit(self._amend, step, dict(progress)))

    def _amend(self, step: int, progress: dict[str, Any]) -> None:
        if not is_process_zero() or step not in checkpoint_steps(self.run):  # it could not be written
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
