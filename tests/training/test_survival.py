"""Runs that are killed, or have full disks, damaged files or batches that are not finite: each run ends
bit-identically to an undisturbed run, or reports in one line why it cannot.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
import signal
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import AsyncCheckpointer, PyTreeCheckpointHandler

from seqlab import catalogue
from seqlab.config import Parallel
from seqlab.distributed import hosts
from seqlab.evaluation.show_batch import place_of_step
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import averaging, checkpoint, listing, loading, manifest, saving
from seqlab.runs.folder import open_run
from seqlab.runs.parameters import best_parameters
from seqlab.system import digests
from seqlab.system.errors import SeqlabError, Stopped
from seqlab.system.files import read_jsonl
from seqlab.system.signals import listen_for_stop
from seqlab.training import loop, nonfinite, outputs, recovery
from seqlab.training.context import TrainingContext
from seqlab.training.optimizer import optimizer_at
from seqlab.training.schedule import make_schedule
from seqlab.training.step import make_step
from seqlab.types import Loss, TrainState
from tests import miniature
from tests.command import save_untrained
from tests.miniature import End, batch_at, end_of, make_context, spoiled, validate


class Killed(BaseException):
    """Simulates the end of the process."""


def train(context: TrainingContext) -> None:
    """Trains without plotting the curves, which takes longer than everything else."""
    with mock.patch.object(loop, "draw_curves"):
        recovery.run_training(context)


def at_step(context: TrainingContext, step: int, act: Callable[[], None]) -> TrainingContext:
    """Returns a context that calls `act` before `step`, each time that the step is taken."""

    def train_step(state: Any, batch: Any) -> Any:
        if int(state.step) + 1 == step:
            act()
        return context.train_step(state, batch)

    return context._replace(train_step=train_step)


def kill() -> None:
    raise Killed


def cut_off(context: TrainingContext, step: int) -> None:
    """Trains up to a step that is not taken, where the run is killed."""
    with pytest.raises(Killed):
        train(at_step(context, step, kill))


@functools.cache
def undisturbed_end(**changes: Any) -> End:
    """Returns the end of an undisturbed run."""
    with tempfile.TemporaryDirectory() as folder:
        train(make_context(Path(folder), **changes))
        return end_of(Path(folder))


@functools.cache
def files_of(step: int, **changes: Any) -> dict[str, bytes]:
    """Returns the files of a run that is killed before a step."""
    with tempfile.TemporaryDirectory() as folder:
        cut_off(make_context(Path(folder), **changes), step)
        return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def write_files(files: dict[str, bytes], run: Path) -> None:
    for name, content in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)


# Damaged files


def largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncated(folder: Path) -> None:
    os.truncate(largest(folder / "state"), largest(folder / "state").stat().st_size // 2)


def flipped(folder: Path) -> None:
    content = bytearray(largest(folder / "state").read_bytes())
    content[len(content) // 2] ^= 1
    largest(folder / "state").write_bytes(content)


def missing(folder: Path) -> None:
    largest(folder / "state").unlink()


def without_state(folder: Path) -> None:
    shutil.rmtree(folder / "state")


def with_more(folder: Path) -> None:
    (folder / "state" / "more").write_bytes(b"")


def linked(folder: Path) -> None:
    path = largest(folder / "state")
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")


def cut_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 100)


def empty_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 0)


def manifest_of_another(folder: Path) -> None:
    shutil.copyfile(folder.with_name("3") / "manifest.json", folder / "manifest.json")


def another(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("3"), folder)


def edited(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["progress"]["index"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))


DAMAGE = (
    truncated,
    flipped,
    missing,
    without_state,
    with_more,
    linked,
    cut_manifest,
    empty_manifest,
    manifest_of_another,
    another,
    edited,
)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    write_files(files_of(8), tmp_path)
    damage(tmp_path / "checkpoints" / "6")
    messages = []
    train(make_context(tmp_path, messages.append))
    assert "CHECKPOINT 6 IS SKIPPED" in messages[0]
    assert str(tmp_path / "checkpoints" / "6") in messages[0]
    assert "\n" not in messages[0]
    assert messages[1] == "resuming from step 3"
    assert end_of(tmp_path) == undisturbed_end()


def test_a_file_that_cannot_be_read_is_damage(tmp_path):
    """As on a disk with bad sectors."""
    write_files(files_of(8), tmp_path)
    digest = hashlib.file_digest

    def read(stream, name):
        if "/6/" in stream.name:
            raise OSError(5, "Input/output error")
        return digest(stream, name)

    messages = []
    with mock.patch.object(hashlib, "file_digest", read):
        assert manifest.newest_whole(tmp_path, messages.append) == 3
    assert messages[0].endswith("Input/output error")


def test_a_half_written_save_was_never_there(tmp_path):
    write_files(files_of(8), tmp_path)
    half_written = tmp_path / "checkpoints" / "6"
    (half_written / "manifest.json").rename(half_written / "manifest.json.part")
    messages = []
    train(make_context(tmp_path, messages.append))
    assert messages[0] == "resuming from step 3"
    assert end_of(tmp_path) == undisturbed_end()
    assert not (half_written / "manifest.json.part").exists()


def test_nothing_whole_is_one_error_and_nothing_is_lost(tmp_path):
    write_files(files_of(8), tmp_path)
    flipped(tmp_path / "checkpoints" / "3")
    edited(tmp_path / "checkpoints" / "6")
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    messages = []
    with pytest.raises(
        SeqlabError, match=r"all checkpoints are damaged: restore one .* delete the folder .*/checkpoints to"
    ):
        train(make_context(tmp_path, messages.append))
    assert [line.split()[1] for line in messages] == ["6", "3"]
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files


def test_damaged_checkpoints_push_out_no_whole_one(tmp_path):
    """Damaged checkpoints, which have later steps, are removed once an intact checkpoint is written."""
    train(make_context(tmp_path))
    for step in ("6", "9"):
        flipped(tmp_path / "checkpoints" / step)
    only_one = {"checkpoints": dataclasses.replace(miniature.experiment().checkpoints, last=1)}
    cut_off(make_context(tmp_path, **only_one), 8)
    assert manifest.checkpoint_steps(tmp_path) == [6]
    assert manifest.newest_whole(tmp_path, print) == 6
    train(make_context(tmp_path, **only_one))
    assert end_of(tmp_path) == undisturbed_end()


# The process ends


@contextmanager
def at_once() -> Iterator[None]:
    """Makes every save wait until it is finished."""

    def and_wait(method: Callable[..., None]) -> Callable[..., None]:
        def call_and_wait(saver: Any, *arguments: Any) -> None:
            method(saver, *arguments)
            saver.wait()

        return call_and_wait

    saver = saving.Saver
    with (
        mock.patch.object(saver, "save", and_wait(saver.save)),
        mock.patch.object(saver, "amend", and_wait(saver.amend)),
    ):
        yield


def test_killed_at_any_moment_of_a_save(tmp_path):
    """Resumes from the files on disk before and after each write of a manifest and each log line."""
    snapshots: list[dict[str, bytes]] = []
    run = tmp_path / "run"

    def take_snapshot():
        snapshots.append({str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()})

    def with_snapshots(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            take_snapshot()
            result = function(*arguments, **options)
            take_snapshot()
            return result

        return call

    with (
        at_once(),  # so that no file appears or disappears during a snapshot
        mock.patch.object(manifest, "write_atomically", with_snapshots(manifest.write_atomically)),
        mock.patch.object(outputs.Logbook, "write", with_snapshots(outputs.Logbook.write)),
    ):
        train(make_context(run))
    assert end_of(run) == undisturbed_end()
    snapshots_by_state = {state_of(files): files for files in snapshots}
    assert {
        (3, False, 2, False),
        (3, False, 3, True),
        (3, True, 3, True),
        (9, False, 9, True),
    } <= snapshots_by_state.keys()
    for number, (state, files) in enumerate(snapshots_by_state.items()):
        if state[0] in (3, 9):
            resumed = tmp_path / str(number)
            write_files(files, resumed)
            train(make_context(resumed))
            assert end_of(resumed) == undisturbed_end()


def state_of(files: dict[str, bytes]) -> tuple[int, bool, int, bool]:
    """Returns the step of the latest checkpoint, whether it is validated, the step of the last log line, and whether
    that line is a validation.
    """
    step = max((int(name.split("/")[1]) for name in files if name.endswith("manifest.json")), default=0)
    judged = step > 0 and json.loads(files[f"checkpoints/{step}/manifest.json"])["progress"]["judged"]
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    return step, judged, lines[-1]["step"] if lines else 0, bool(lines) and "validation loss" in lines[-1]


@contextmanager
def signalled(context: TrainingContext) -> Iterator[TrainingContext]:
    with listen_for_stop() as stop_request:
        yield context._replace(stop_request=stop_request)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (4, signal.SIGINT), (5, signal.SIGTERM)])
def test_a_signal_in_a_step_ends_with_a_checkpoint_of_it(tmp_path, step, number):
    with (
        signalled(make_context(tmp_path)) as context,
        pytest.raises(Stopped, match=f"stopped at step {step}, which is saved"),
    ):
        train(at_step(context, step, lambda: send(number)))
    assert manifest.newest_whole(tmp_path, print) == step
    assert manifest.read_manifest(tmp_path, step)["progress"]["judged"]
    messages = []
    train(make_context(tmp_path, messages.append))
    assert messages[0] == f"resuming from step {step}"
    assert end_of(tmp_path) == undisturbed_end()


@pytest.mark.parametrize("step", [3, 9])
@pytest.mark.parametrize("in_step", [True, False])
def test_a_signal_when_the_state_is_judged(tmp_path, step, in_step):
    """A signal before or during validation: the state is saved, and the same command starts with that validation."""
    with signalled(make_context(tmp_path)) as context, pytest.raises(Stopped):
        if in_step:
            train(at_step(context, step, send))
        else:
            calls = itertools.count(1)

            def validate_and_send(params):
                if next(calls) == step // 3:
                    send()
                return validate(params)

            train(context._replace(validate=validate_and_send))
    assert manifest.newest_whole(tmp_path, print) == step
    assert not manifest.read_manifest(tmp_path, step)["progress"]["judged"]
    messages = []
    train(make_context(tmp_path, messages.append))
    assert messages[1].startswith(f"step {step}: loss")
    assert end_of(tmp_path) == undisturbed_end()


def test_a_signal_in_the_last_save_is_too_late(tmp_path):
    """After the last step the save is finished, and the run ends successfully."""
    wait = saving.Saver.wait

    def wait_and_send(saver):
        if saver.pending and len(read_jsonl(tmp_path / "metrics.jsonl")) == 7:
            send()
        wait(saver)

    with signalled(make_context(tmp_path)) as context, mock.patch.object(saving.Saver, "wait", wait_and_send):
        train(context)
        assert context.stop_request.requested
    assert end_of(tmp_path) == undisturbed_end()


def test_a_second_signal_ends_at_once(tmp_path):
    def send_twice():
        send()
        send()

    with signalled(make_context(tmp_path)) as context, pytest.raises(Stopped):
        train(at_step(context, 5, send_twice))
    assert manifest.newest_whole(tmp_path, print) == 3
    train(make_context(tmp_path))
    assert end_of(tmp_path) == undisturbed_end()


# No room


class Disk:
    """A disk that is full from one step to another, so that a save fails in one of three ways: the folder cannot be
    created, Orbax cannot write the state, or the manifest cannot be written. (A limit on file sizes would be more
    realistic, but applies to the whole process, and the output of the tests may also go to a file.)
    """

    def __init__(self, failure: str):
        self.failure, self.full = failure, False

    def set(self, full: bool) -> None:
        self.full = full

    @contextmanager
    def holding(self, context: TrainingContext, begin: int, end: int) -> Iterator[TrainingContext]:
        write, mkdir = manifest.write_atomically, Path.mkdir
        begin_to_save, wait = PyTreeCheckpointHandler.async_save, AsyncCheckpointer.wait_until_finished
        failed: list[tuple[AsyncCheckpointer, OSError]] = []

        def writing(path, content):
            self.refuse("manifest")
            write(path, content)

        def making(path, *arguments, **options):
            if path.parent.name == "checkpoints":
                self.refuse("folder")
            mkdir(path, *arguments, **options)

        async def saving(*arguments, **options):
            last = types.SimpleNamespace(result=lambda timeout=None: self.refuse("state"))
            return [*await begin_to_save(*arguments, **options), last]

        def wait_again(checkpointer):
            """A failed checkpointer raises its error again, like Orbax if it cannot write its metadata."""
            try:
                wait(checkpointer)
            except OSError as error:
                failed.append((checkpointer, error))
            for failed_checkpointer, error in failed:
                if failed_checkpointer is checkpointer:
                    raise error

        context = at_step(at_step(context, begin, lambda: self.set(True)), end, lambda: self.set(False))
        try:
            with (
                at_once(),
                mock.patch.object(manifest, "write_atomically", writing),
                mock.patch.object(Path, "mkdir", making),
                mock.patch.object(PyTreeCheckpointHandler, "async_save", saving),
                mock.patch.object(AsyncCheckpointer, "wait_until_finished", wait_again),
            ):
                yield context
        finally:
            self.set(False)

    def refuse(self, failure: str) -> None:
        if self.full and self.failure == failure:
            raise OSError(28, "No space left on device")


def in_every_way(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test for every way in which a save can fail."""
    return pytest.mark.parametrize("failure", ["folder", "state", "manifest"])(test)


@in_every_way
def test_a_full_disk_costs_a_checkpoint_and_no_more(tmp_path, failure):
    """The save of step 6 fails, and is replaced by a save of step 8, at the next log line, until step 9 is saved."""
    messages, removed = [], []
    remove = saving._remove
    with (
        Disk(failure).holding(make_context(tmp_path, messages.append), 5, 7) as context,
        mock.patch.object(saving, "_remove", lambda path: (removed.append(path.name), remove(path))),
    ):
        train(context)
    reports = [line for line in messages if line.startswith("THE CHECKPOINT")]
    assert len(reports) == 1
    assert reports[0].startswith("THE CHECKPOINT OF STEP 6 COULD NOT BE WRITTEN, training continues: ")
    assert manifest.checkpoint_steps(tmp_path) == [3, 9]
    assert removed[-1] == "8"
    assert end_of(tmp_path) == undisturbed_end()


def sleeping(sleep):
    """Replaces only the pauses of the training loop, since threads of Orbax also use `time.sleep`."""
    return mock.patch.object(loop, "time", types.SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter))


@in_every_way
def test_a_disk_that_stays_full(tmp_path, failure):
    """Earlier checkpoints stay, and the run fails. Once there is space, the same command completes the run."""
    messages, pauses = [], []
    with (
        Disk(failure).holding(make_context(tmp_path, messages.append), 5, 99) as context,
        sleeping(pauses.append),
        pytest.raises(SeqlabError, match=r"(step 9 could not be saved: free disk space|metrics.jsonl could not)"),
    ):
        train(context)
    assert pauses == [1, 5, 25]
    reports = [line.split()[4] for line in messages if line.startswith("THE CHECKPOINT OF STEP")]
    assert reports == ["6", "8", "9", "9", "9", "9"]
    assert manifest.newest_whole(tmp_path, print) == 3
    train(make_context(tmp_path))
    assert end_of(tmp_path) == undisturbed_end()


@in_every_way
def test_room_comes_back_when_all_is_done(tmp_path, failure):
    disk = Disk(failure)
    with (
        disk.holding(make_context(tmp_path), 5, 99) as context,
        sleeping(lambda seconds: disk.set(seconds < 5)),
    ):
        train(context)
    assert manifest.checkpoint_steps(tmp_path) == [3, 9]
    assert end_of(tmp_path) == undisturbed_end()


def test_what_is_owed_for_its_manifest_alone_is_not_written_over(tmp_path):
    """With a single checkpoint, overwriting it would lose the only one."""
    only_one = {"checkpoints": dataclasses.replace(miniature.experiment().checkpoints, last=1)}
    disk, names = Disk("manifest"), []

    def state():  # each write chooses new random names
        return {path.name for path in (tmp_path / "checkpoints/9/state").rglob("*")}

    def validate_and_fill(params):
        if len(read_jsonl(tmp_path / "metrics.jsonl")) == 6:  # at step 9
            while manifest.checkpoint_steps(tmp_path)[-1] != 9:
                pass
            names.append(state())
            disk.set(True)
        return validate(params)

    with (
        disk.holding(make_context(tmp_path, **only_one), 99, 99) as context,
        sleeping(lambda seconds: disk.set(seconds < 5)),
    ):
        train(context._replace(validate=validate_and_fill))
    assert names == [state()]
    assert end_of(tmp_path) == undisturbed_end()


def test_stopped_when_nothing_can_be_saved(tmp_path):
    with (
        signalled(make_context(tmp_path)) as context,
        Disk("folder").holding(context, 4, 99) as full_context,
        pytest.raises(Stopped, match="stopped at step 5, which could not be saved"),
    ):
        train(at_step(full_context, 5, send))
    train(make_context(tmp_path))
    assert end_of(tmp_path) == undisturbed_end()


def test_an_error_without_words_is_told(tmp_path):
    messages = []
    saver = saving.Saver(tmp_path, 1, messages.append)
    with mock.patch.object(manifest, "write_atomically", side_effect=MemoryError):
        saver.save({"a": np.ones(2)}, 1, {})
        saver.close()
    assert messages == ["THE CHECKPOINT OF STEP 1 COULD NOT BE WRITTEN, training continues: MemoryError()"]
    assert saver.failure
    with (
        mock.patch.object(manifest, "write_atomically", side_effect=OSError(28, "No space left on device")),
        pytest.raises(SeqlabError, match="its checkpoint could not be written: .*No space left on device"),
    ):
        saving.save_alone(tmp_path, {"a": np.ones(2)}, 1, {})


# Losses and gradients that are not finite


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("step", "checkpoint"), [(2, "there is no checkpoint yet"), (5, "checkpoint is at step 3")])
def test_stop(tmp_path, step, value, checkpoint):
    epoch, index = batch_at(step)
    context = make_context(tmp_path)._replace(collate=spoiled([epoch, index], value=value))
    command = f"seqlab show-batch {tmp_path} --batch {epoch}/{index}"
    place = rf"step {step} is not finite \(epoch {epoch}, batch {index}; {command}\)"
    for _ in range(2):  # the second run ends the same
        with pytest.raises(SeqlabError, match=f"{place}; .*{checkpoint}"):
            train(context)
    assert manifest.checkpoint_steps(tmp_path) == [3] * (step > 3)


def host_states(context: TrainingContext) -> tuple[TrainingContext, dict[int, Any]]:
    """Returns a context that records the state after each step, and the recorded states."""
    states = {}

    def step(state, batch):
        new_state, result = context.train_step(state, batch)
        states[int(new_state.step)] = jax.tree.map(np.array, new_state)
        return new_state, result

    return context._replace(train_step=step), states


def same(first: Any, second: Any) -> bool:
    return digests.digest_of(first) == digests.digest_of(second)


def test_skip(tmp_path):
    """A skipped step changes only the step number, not parameters, optimizer, average, carry or sums."""
    messages = []
    context, states = host_states(make_context(tmp_path, messages.append, nonfinite="skip"))
    train(context._replace(collate=spoiled(batch_at(5), batch_at(9))))
    assert len(states) == 9
    for step, state in states.items():
        unchanged = {name for name in ("params", "optimizer", "average", "carry") if step > 1} & {
            field.name
            for field in dataclasses.fields(state)
            if step > 1 and same(getattr(state, field.name), getattr(states[step - 1], field.name))
        }
        assert unchanged == ({"params", "optimizer", "average", "carry"} if step in (5, 9) else set())
        assert state.step == step
    assert states[5].sums["steps"] == states[9].sums["steps"] == 0  # the log was written at 4 and 8
    assert states[6].sums["steps"] == 1
    reports = [line for line in messages if "IS SKIPPED" in line]
    assert [line.split()[6] for line in reports] == ["5", "9"]
    assert f"(epoch 0, batch 4; seqlab show-batch {tmp_path} --batch 0/4)" in reports[0]
    assert manifest.checkpoint_steps(tmp_path) == [3, 6, 9]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[9]))


def test_a_gradient_alone_that_is_not_finite():
    """The square root at zero: the loss is 0, but its gradient is infinite."""
    e = miniature.experiment()
    optimizer = optimizer_at(e.optimizer, make_schedule(e.schedule, e.steps))

    def loss(params, batch, context):
        return Loss(jnp.sqrt(params["x"]) * batch.sum(), jnp.float32(4), {})

    params = {"x": jnp.zeros(())}
    sums = dict.fromkeys(("loss", "weight", "gradient_norm", "steps"), jnp.float32(0))
    state = TrainState(jnp.int32(0), params, optimizer.init(params), None, sums)
    new_state, result = make_step(loss, optimizer, 0, skip=True)(state, jnp.ones(4))
    assert not result["finite"]
    assert new_state.params["x"] == new_state.sums["steps"] == 0


def test_skip_resumed(tmp_path):
    collate = spoiled(batch_at(5))
    for name in ("whole", "cut"):
        context = make_context(tmp_path / name, nonfinite="skip")._replace(collate=collate)
        if name == "cut":
            cut_off(context, 6)
        train(context)
    assert end_of(tmp_path / "whole") == end_of(tmp_path / "cut")


def test_too_many_in_a_row(tmp_path):
    batches = [batch_at(step) for step in range(1, 10)]
    with mock.patch.object(nonfinite, "MAX_IN_A_ROW", 2), mock.patch.object(recovery, "MAX_IN_A_ROW", 2):
        for name, mode, spoiled_batches, checkpoint in (
            ("a", "skip", batches[3:], 3),
            ("b", "rollback", batches[4:], 3),
        ):
            messages = []
            with pytest.raises(SeqlabError, match=f"the last good checkpoint is at step {checkpoint}"):
                train(
                    make_context(tmp_path / name, messages.append, nonfinite=mode)._replace(
                        collate=spoiled(*spoiled_batches)
                    )
                )
            assert sum("IS NOT FINITE" in line for line in messages) == 2
        with pytest.raises(
            SeqlabError,
            match=r"no checkpoint yet\. Try .* in a new run\. Training stopped after 2 such results in a row$",
        ):
            train(make_context(tmp_path / "d", nonfinite="rollback")._replace(collate=spoiled(*batches)))
        messages = []
        two_in_a_row = spoiled(batches[0], batches[1], batches[3], batches[4], batches[6], batches[7])
        train(make_context(tmp_path / "c", messages.append, nonfinite="skip")._replace(collate=two_in_a_row))
        assert sum("IS NOT FINITE" in line for line in messages) == 6


class Without(miniature.Plan):
    """A plan without some batches."""

    def __init__(self, *removed: list[int]):
        self.removed = removed

    def batches(self, seed, epoch):
        batches = super().batches(seed, epoch)
        return [batch_plan for index, batch_plan in enumerate(batches) if [epoch, index] not in self.removed]


@functools.cache
def end_without(*steps: int) -> End:
    """Returns the end of a run whose data lacks the batches of these steps."""
    with tempfile.TemporaryDirectory() as folder:
        train(make_context(Path(folder), nonfinite="rollback")._replace(plan=Without(*map(batch_at, steps))))
        return end_of(Path(folder))


def record_targets(context: TrainingContext) -> tuple[TrainingContext, dict[int, list[float]]]:
    """Returns a context that records the targets of each step, and the recorded targets."""
    targets = {}

    def step(state, batch):
        targets[int(state.step) + 1] = np.asarray(batch.targets).tolist()
        return context.train_step(state, batch)

    return context._replace(train_step=step), targets


@pytest.mark.parametrize("bad_steps", [(1,), (3,), (5, 6), (4, 8), (9,)], ids=str)
def test_rollback(tmp_path, bad_steps):
    """State, log and trail end as if the data lacked those batches. `seqlab show-batch` finds the same batches."""
    messages = []
    bad_batches = [batch_at(step) for step in bad_steps]
    context, targets = record_targets(make_context(tmp_path, messages.append, nonfinite="rollback"))
    train(context._replace(collate=spoiled(*bad_batches)))
    end, expected = end_of(tmp_path), end_without(*bad_steps)
    assert (end.state, end.log, end.trail) == (expected.state, expected.log, expected.trail)
    left_out = end.progress["left_out"]
    assert left_out == bad_batches
    epoch, index = batch_at(9, left_out)
    assert end.progress == {**expected.progress, "left_out": bad_batches, "epoch": epoch, "index": index + 1}
    for step in range(1, 10):
        batch = list(place_of_step(itertools.repeat(5), step, left_out))
        assert batch == batch_at(step, left_out)
        batch_plan = miniature.Plan().batches(miniature.SEED, batch[0])[batch[1]]
        assert targets[step] == miniature.collate(batch_plan).targets.tolist()
    reports = [line for line in messages if "ROLLED BACK" in line]
    assert len(reports) == len(bad_steps)
    first = bad_steps[0]
    checkpoint = 3 * ((first - 1) // 3)
    assert (
        f"STEP {first} IS NOT FINITE: ROLLED BACK to step {checkpoint}, continuing without that batch" in reports[0]
    )
    assert reports[0].endswith("--batch {}/{})".format(*bad_batches[0]))


@pytest.mark.parametrize("killed_at", [4, 5, 8])
def test_killed_after_a_rollback(tmp_path, killed_at):
    """Kills the run before the next checkpoint, when nothing on disk records the rollback, or after it."""
    context = make_context(tmp_path, nonfinite="rollback")._replace(collate=spoiled(batch_at(5)))
    attempts = []

    def kill_the_second_time():
        attempts.append(killed_at)
        if len(attempts) == (2 if killed_at < 6 else 1):
            raise Killed

    with pytest.raises(Killed):
        train(at_step(context, killed_at, kill_the_second_time))
    train(context)
    end, expected = end_of(tmp_path), end_without(5)
    assert (end.state, end.log, end.trail) == (expected.state, expected.log, expected.trail)
    assert end.progress["left_out"] == [batch_at(5)]


def test_lines_that_the_log_has_lost_are_told(tmp_path):
    cut_off(make_context(tmp_path), 8)
    log = tmp_path / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if not line.startswith('{"step": 4,')))
    messages = []
    train(make_context(tmp_path, messages.append))
    assert [line for line in messages if "LOST" in line] == [
        f"{log} HAS LOST LINES, the first at step 4; new lines are appended"
    ]
    assert [
        line
        for line in undisturbed_end().log.decode().splitlines(keepends=True)
        if not line.startswith('{"step": 4,')
    ] == (log.read_text().splitlines(keepends=True))


def test_a_validation_that_is_not_finite(tmp_path):
    """It is an error, whatever the policy for steps, and the checkpoint stays unvalidated."""
    messages, calls = [], itertools.count(1)
    context = make_context(tmp_path, messages.append, nonfinite="rollback")
    with pytest.raises(
        SeqlabError, match=r"the validation loss of step 6 is not finite.*in a new run, with --init-from"
    ):
        train(context._replace(validate=lambda params: {"loss": np.nan} if next(calls) == 2 else validate(params)))
    assert not any("ROLLED" in line for line in messages)
    assert not manifest.read_manifest(tmp_path, 6)["progress"]["judged"]
    assert manifest.choose_step(tmp_path) == 3
    train(make_context(tmp_path))
    assert end_of(tmp_path) == undisturbed_end()


# Which checkpoints are kept


def tree(value: float) -> dict[str, Any]:
    return {"params": {"a": np.full(3, value, np.float32)}, "step": np.int32(value)}


def test_the_best_is_kept_beside_the_last(tmp_path):
    """The best step is known only after the save, so a checkpoint is pruned when its successor is validated."""
    saver = saving.Saver(tmp_path, 1)
    saved_steps = []
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 5)):
        saver.save(tree(step), step, {"best_step": 2 if step > 2 else 1, "judged": False})
        saver.wait()
        saver.amend(step, {"best_step": best, "judged": True})
        saver.wait()
        saved_steps.append(manifest.checkpoint_steps(tmp_path))
        assert manifest.read_manifest(tmp_path, step)["progress"] == {"best_step": best, "judged": True}
        assert manifest.choose_step(tmp_path) == best
    assert saved_steps == [[1], [2], [2, 3], [2, 4], [5]]
    saver.amend(3, {"best_step": 3})  # long gone
    saver.close()
    assert manifest.checkpoint_steps(tmp_path) == [5]
    assert manifest.newest_whole(tmp_path, print) == 5


def test_a_step_is_saved_again(tmp_path):
    """A second attempt replaces all earlier files."""
    for value in (1.0, 2.0):
        saving.save_alone(tmp_path, {**tree(7), "params": {"a": np.full(3, value)}}, 7, {"value": value})
        assert checkpoint.restore(tmp_path, 7)["params"]["a"].tolist() == [value] * 3
        assert manifest.read_manifest(tmp_path, 7)["progress"] == {"value": value}


def test_the_moving_average_is_what_is_judged(tmp_path):
    """It is share * average + (1 - share) * parameters, starting from the initial parameters."""
    context, states = host_states(make_context(tmp_path))
    validated = []
    train(
        context._replace(validate=lambda params: validated.append(jax.tree.map(np.array, params)) or validate(params))
    )
    average = miniature.first_state().params
    for step, state in sorted(states.items()):
        share = min(0.9, step / (step + 9))
        average = {name: share * average[name] + (1 - share) * state.params[name] for name in average}
        for name in average:
            np.testing.assert_allclose(state.average[name], average[name], rtol=1e-5)
    assert [same(params, states[step].average) for step, params in zip((3, 6, 9), validated, strict=True)] == [
        True
    ] * 3
    assert not same(states[9].average, states[9].params)
    saved = checkpoint.restore(tmp_path, 9)
    assert same(checkpoint.parameters_of(saved), states[9].average)
    mean, steps = averaging.mean_parameters(tmp_path, 2, every=3, end=9)
    assert steps == [6, 9]
    for name in mean:
        np.testing.assert_allclose(mean[name], (states[6].average[name] + states[9].average[name]) / 2, rtol=1e-6)


def test_a_fingerprint_covers_the_average(tmp_path):
    prints = []
    for number, name in enumerate(("params", "optimizer", "average", "carry", "step", "sums", None)):
        state = checkpoint.saved_tree(miniature.first_state())
        state["optimizer"] = {"mu": np.zeros(3, np.float32)}
        if name is not None:
            state[name] = jax.tree.map(lambda x: np.asarray(x + 1), state[name])
        saving.save_alone(tmp_path / str(number), state, 1, {})
        prints.append(checkpoint.fingerprint(tmp_path / str(number), 1))
    assert len({*prints}) == 6
    assert prints[-1] == prints[-2]  # sums belong to the log and are reset at each line


def test_parameters_alone_do_not_train_on(tmp_path):
    for kind in ("averaged", "imported"):
        saving.save_alone(tmp_path, tree(1), 1, {kind: [1]})
        with pytest.raises(
            SeqlabError, match=f"has {kind} parameters, from which training cannot resume: .* --init-from"
        ):
            train(make_context(tmp_path))


def test_the_average_is_what_others_take_from_a_run(tmp_path):
    """Decoding and initialization use the average. Arrays that do not match the model are an error."""
    codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
    save_untrained(tiny_experiment(), codecs, tmp_path / "run")
    params = checkpoint.restore(tmp_path / "run", 1)["params"]
    average = jax.tree.map(lambda x: x + 1, params)
    saving.save_alone(tmp_path / "run", {"params": params, "average": average}, 2, {"best_step": 2})
    assert same(loading.load(tmp_path / "run").params, average)
    assert same(best_parameters(tmp_path / "run"), average)
    saving.save_alone(tmp_path / "run", {"params": params, "average": {"x": np.ones(3)}}, 3, {})
    with pytest.raises(SeqlabError, match="the array"):
        loading.load(tmp_path / "run", "3")


def test_what_may_change_from_one_part_of_a_run_to_the_next(tmp_path):
    """The devices and the monitoring of a run may change, but nothing that affects its results."""
    content = {"train": "0" * 64}

    def open_again(**changes: Any) -> None:
        open_run(dataclasses.replace(tiny_experiment(), **changes), {}, content, tmp_path / "run", "seqlab train x")

    open_again()
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    open_again()
    for spread in (Parallel("pmap"), Parallel(fsdp=2, tensor=2), Parallel(heartbeat=7)):
        open_again(parallel=spread)
    open_again(nonfinite="rollback", hash_every=3, log_every=4)
    for name, value in (("seed", 1), ("accumulate", 2)):
        with pytest.raises(
            SeqlabError,
            match=f"holds a different experiment:\n  {name}: .* in the run, {value} in this command\nchoose",
        ):
            open_again(**{name: value})
    with pytest.raises(
        SeqlabError, match=r"steps: 10 in the run, 1 in this command \(the number .* can only be increased\)\nchoose"
    ):
        open_again(steps=1)
    with pytest.raises(SeqlabError, match="the data of .* has changed since the run started"):
        open_run(tiny_experiment(), {}, {"train": "1" * 64}, tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == files


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_cover_everything_once(processes):
    for count in (0, 1, 5, 6, 13):
        shares = []
        for process in range(processes):
            with mock.patch.multiple(jax, process_count=lambda: processes, process_index=lambda index=process: index):
                shares.append(hosts.share_of(count))
        assert list(itertools.chain(*shares)) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_the_first_does_alone():
    """All processes receive the result of process 0, or its error, for one process and for a second process."""
    assert hosts.gather({"a": [1]}) == [{"a": [1]}]
    assert hosts.on_process_zero(lambda: (3, "x")) == (3, "x")

    def fail():
        raise SeqlabError("no room")

    with pytest.raises(SeqlabError, match="^no room$"):
        hosts.on_process_zero(fail)
    for gathered, expected in (([7, None], 7), ([None, "no room"], None)):
        with (
            mock.patch.object(jax, "process_index", return_value=1),
            mock.patch.object(hosts, "gather", lambda own, gathered=gathered: [gathered, own]),
        ):
            if expected is None:
                with pytest.raises(SeqlabError, match="^no room$"):
                    hosts.on_process_zero(fail)
            else:
                assert hosts.on_process_zero(fail) == expected


def test_a_run_is_finished_when_its_last_state_is_judged(tmp_path):
    states = []
    catalogue.save_experiment(
        dataclasses.replace(tiny_experiment(), steps=miniature.STEPS), tmp_path / "experiment.json"
    )

    def record_state(params):
        while not manifest.checkpoint_steps(tmp_path):
            pass
        states.append(listing.inspect_run(tmp_path).state)
        return validate(params)

    train(make_context(tmp_path)._replace(validate=record_state))
    assert listing.inspect_run(tmp_path).state == "finished"
    progress = manifest.read_manifest(tmp_path, 9)["progress"]
    files = manifest.read_manifest(tmp_path, 9)["files"]
    manifest.write_manifest(tmp_path, 9, {**progress, "judged": False}, files)
    assert listing.inspect_run(tmp_path).state == "interrupted"
    assert states == ["interrupted"] * 3
