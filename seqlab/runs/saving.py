"""Writing of checkpoints, in the background while training continues."""

import contextlib
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from seqlab.distributed.hosts import is_process_zero, on_process_zero
from seqlab.runs.checkpoint import byte_count, silence_orbax
from seqlab.runs.manifest import MANIFEST, STEP, checkpoint_steps, hash_files, read_manifest, write_manifest
from seqlab.system.errors import SeqlabError

HEADROOM = 1 << 20  # bytes of disk space for the log and the files that Orbax writes in addition to the arrays


def new_checkpointer() -> Any:
    """Returns an Orbax checkpointer that writes in the background."""
    silence_orbax()
    return ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())


_copy = jax.jit(jnp.copy)  # jitted, so that it can copy an array on the devices of several processes


class Saver:
    """Writes checkpoints in the background, one at a time. Keeps the last `keep` checkpoints at multiples of `every`
    steps, the best one and the last one. So an interrupted run keeps the same checkpoints as an uninterrupted one.

    If a checkpoint cannot be written, for example on a full disk, this is reported, `failure` is the reason, and the
    caller saves again later. Several processes check the disk space before they write. A failure after that check is
    an error, because the other processes would wait forever.
    """

    def __init__(self, run: Path, keep: int, say: Callable[[str], None] = print, every: int = 1):
        self.run, self.keep, self.say, self.every = run, max(keep, 1), say, every
        self.checkpointer = new_checkpointer()
        self.background = ThreadPoolExecutor(1)
        self.pending: list[Future[None]] = []
        self.written: int | None = None  # the step of the last completely written state
        self.failure = ""  # the reason why the last checkpoint could not be written

    def save(self, state: Any, step: int, progress: dict[str, Any]) -> None:
        """Starts writing a checkpoint, after the previous one is written. The state may change once this returns."""
        self.wait()
        self.failure = ""
        if step == self.written:  # only its manifest could not be written
            return self.amend(step, progress)
        target = (self.run / "checkpoints" / str(step)).resolve()
        # A copy, because the next step donates the buffers of `state`.
        copy = jax.tree.map(lambda x: _copy(x) if isinstance(x, jax.Array) else np.array(x), state)
        reason = on_process_zero(lambda: _make_room(target, byte_count(copy)))
        if reason:
            return self._report_failure(step, reason)
        try:
            self.checkpointer.save(target / "state", args=ocp.args.PyTreeSave(copy))
        except Exception as error:
            self._handle_error(step, error)
        else:
            self.pending.append(self.background.submit(self._finish, step, dict(progress)))

    def _finish(self, step: int, progress: dict[str, Any]) -> None:
        target = self.run / "checkpoints" / str(step)
        try:
            self.checkpointer.wait_until_finished()
            if is_process_zero():
                write_manifest(self.run, step, progress, hash_files(target / "state"))
                self.written = step
                self._prune(step, progress)
        except Exception as error:
            self._handle_error(step, error)

    def amend(self, step: int, progress: dict[str, Any]) -> None:
        """Replaces the progress in the manifest of the checkpoint at `step`, once it is written."""
        self.pending.append(self.background.submit(self._amend, step, dict(progress)))

    def _amend(self, step: int, progress: dict[str, Any]) -> None:
        if not is_process_zero() or step not in checkpoint_steps(self.run):  # the checkpoint could not be written
            return
        try:
            write_manifest(self.run, step, progress, read_manifest(self.run, step)["files"])
            self._prune(step, progress)
        except OSError as error:
            self._handle_error(step, error)

    def _prune(self, step: int, progress: dict[str, Any]) -> None:
        """Removes old checkpoints, those at earlier stops, and those of later steps, which were skipped because they
        are damaged.
        """
        steps = [saved for saved in checkpoint_steps(self.run) if saved <= step and saved % self.every == 0]
        kept_steps = {step, *steps[-self.keep :], progress.get("best_step")}
        for path in (self.run / "checkpoints").iterdir():
            if STEP.fullmatch(path.name) and int(path.name) not in kept_steps:
                _remove(path)

    def _handle_error(self, step: int, error: Exception) -> None:
        if jax.process_count() > 1:
            raise SeqlabError(f"{self.run}: the checkpoint of step {step} could not be written: {error}") from error
        with contextlib.suppress(Exception):
            self.checkpointer.close()
        self.checkpointer = new_checkpointer()  # the old checkpointer would raise the error again at the next save
        self._report_failure(step, (str(error).strip() or repr(error)).splitlines()[0])

    def _report_failure(self, step: int, reason: str) -> None:
        self.failure = reason
        target = self.run / "checkpoints" / str(step)
        if not (target / MANIFEST).exists():
            shutil.rmtree(target, ignore_errors=True)  # frees space for the next attempt
        self.say(f"THE CHECKPOINT OF STEP {step} COULD NOT BE WRITTEN, training continues: {reason}")

    def wait(self) -> None:
        """Waits until everything is written."""
        pending, self.pending = self.pending, []
        for future in pending:
            future.result()

    def close(self) -> None:
        """Waits until everything is written and ends the background thread."""
        self.wait()
        self.background.shutdown()
        self.checkpointer.close()


def save_alone(run: Path, state: Any, step: int, progress: dict[str, Any]) -> None:
    """Writes the only checkpoint of a run. Raises `SeqlabError` if that fails."""
    saver = Saver(run, 1, lambda line: None)
    saver.save(state, step, progress)
    saver.close()
    if saver.failure:
        raise SeqlabError(f"{run}: its checkpoint could not be written: {saver.failure}")


def _make_room(checkpoint: Path, size: int) -> str:
    """Creates an empty folder for a checkpoint of `size` bytes. Returns why that failed, or an empty string."""
    try:
        _remove(checkpoint)
        checkpoint.mkdir(parents=True)
        free = shutil.disk_usage(checkpoint).free
    except OSError as error:
        return str(error)
    needed = size + HEADROOM
    return "" if needed <= free else f"{needed:,} bytes are needed, but the disk has only {free:,} left"


def _remove(checkpoint: Path) -> None:
    """Removes a checkpoint, its manifest first, so that after a crash the rest does not count as a checkpoint."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)
