"""Whatever cuts a run off, fills its disk, damages its files or feeds it what is not finite: it ends, to the bit, as
the run that nothing happened to, or says in one line why not.
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
from seqlab.data.records import Prepared
from seqlab.distributed import hosts
from seqlab.evaluation.show_batch import place_of_step
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import checkpoint, listing, loading, manifest, saving
from seqlab.runs.folder import open_run
from seqlab.runs.parameters import load_params
from seqlab.system import digests
from seqlab.system.errors import SeqlabError, Stopped
from seqlab.system.files import read_jsonl
from seqlab.system.signals import wish_to_stop
from seqlab.training import loop, recovery
from seqlab.training.context import TrainingContext
from seqlab.training.optimizer import make_optimizer
from seqlab.training.step import make_step
from seqlab.types import TrainState
from tests import miniature
from tests.command import save_untrained
from tests.miniature import End, batch_at, end_of, spoiled, validate, work


class Killed(BaseException):
    """Stands for the end of the process."""


def go(work: TrainingContext) -> None:
    """`run_steps` without the picture of the curves, which takes longer than all the rest."""
    with mock.patch.object(loop, "draw_curves"):
        recovery.run_steps(work)


def at_step(work: TrainingContext, step: int, act: Callable[[], None]) -> TrainingContext:
    """Acts when the step is about to be taken: as often as that happens."""

    def taken(state: Any, batch: Any) -> Any:
        if int(state.step) + 1 == step:
            act()
        return work.step(state, batch)

    return work._replace(step=taken)


def kill() -> None:
    raise Killed


def cut_off(work: TrainingContext, step: int) -> None:
    """Trains up to a step that is not taken."""
    with pytest.raises(Killed):
        go(at_step(work, step, kill))


@functools.cache
def calm(**changes: Any) -> End:
    """The end of the run that nothing happens to."""
    with tempfile.TemporaryDirectory() as folder:
        go(work(Path(folder), **changes))
        return end_of(Path(folder))


@functools.cache
def files_of(step: int, **changes: Any) -> dict[str, bytes]:
    """What a run leaves that is killed before that step."""
    with tempfile.TemporaryDirectory() as folder:
        cut_off(work(Path(folder), **changes), step)
        return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def put(files: dict[str, bytes], run: Path) -> None:
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
    put(files_of(8), tmp_path)
    damage(tmp_path / "checkpoints" / "6")
    told = []
    go(work(tmp_path, told.append))
    assert "CHECKPOINT 6 IS PASSED OVER" in told[0]
    assert str(tmp_path / "checkpoints" / "6") in told[0]
    assert "\n" not in told[0]
    assert told[1] == "resuming from step 3"
    assert end_of(tmp_path) == calm()


def test_a_file_that_cannot_be_read_is_damage(tmp_path):
    """As of a disk with bad sectors."""
    put(files_of(8), tmp_path)
    digest = hashlib.file_digest

    def read(stream, name):
        if "/6/" in stream.name:
            raise OSError(5, "Input/output error")
        return digest(stream, name)

    told = []
    with mock.patch.object(hashlib, "file_digest", read):
        assert manifest.newest_whole(tmp_path, told.append) == 3
    assert told[0].endswith("Input/output error")


def test_a_half_written_save_was_never_there(tmp_path):
    put(files_of(8), tmp_path)
    half = tmp_path / "checkpoints" / "6"
    (half / "manifest.json").rename(half / "manifest.json.part")
    told = []
    go(work(tmp_path, told.append))
    assert told[0] == "resuming from step 3"
    assert end_of(tmp_path) == calm()
    assert not (half / "manifest.json.part").exists()


def test_nothing_whole_is_one_error_and_nothing_is_lost(tmp_path):
    put(files_of(8), tmp_path)
    flipped(tmp_path / "checkpoints" / "3")
    edited(tmp_path / "checkpoints" / "6")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    told = []
    with pytest.raises(
        SeqlabError, match=r"no checkpoint is whole: remove .*/checkpoints to train from the beginning"
    ):
        go(work(tmp_path, told.append))
    assert [line.split()[1] for line in told] == ["6", "3"]
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_damaged_checkpoints_push_out_no_whole_one(tmp_path):
    """Those that were passed over are of later steps: they are gone once the first whole one is written."""
    go(work(tmp_path))
    for step in ("6", "9"):
        flipped(tmp_path / "checkpoints" / step)
    few = {"checkpoints": dataclasses.replace(miniature.experiment().checkpoints, last=1)}
    cut_off(work(tmp_path, **few), 8)
    assert manifest.checkpoint_steps(tmp_path) == [6]
    assert manifest.newest_whole(tmp_path, print) == 6
    go(work(tmp_path, **few))
    assert end_of(tmp_path) == calm()


# The process ends


@contextmanager
def at_once() -> Iterator[None]:
    """Whatever is saved is waited for."""

    def waiting(do: Callable[..., None]) -> Callable[..., None]:
        def doing(saver: Any, *arguments: Any) -> None:
            do(saver, *arguments)
            saver.wait()

        return doing

    saver = saving.Saver
    with (
        mock.patch.object(saver, "save", waiting(saver.save)),
        mock.patch.object(saver, "amend", waiting(saver.amend)),
    ):
        yield


def test_killed_at_any_moment_of_a_save(tmp_path):
    """What lies on the disk before and after each manifest and each line of the log, taken up again."""
    taken: list[dict[str, bytes]] = []
    run = tmp_path / "run"

    def moment():
        taken.append({str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()})

    def watched(do: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*arguments: Any, **options: Any) -> Any:
            moment()
            found = do(*arguments, **options)
            moment()
            return found

        return doing

    with (
        at_once(),  # so that no file comes or goes while all are looked at
        mock.patch.object(manifest, "write_atomically", watched(manifest.write_atomically)),
        mock.patch.object(loop.Logbook, "write", watched(loop.Logbook.write)),
    ):
        go(work(run))
    assert end_of(run) == calm()
    moments = {told_by(files): files for files in taken}
    assert {(3, False, 2, False), (3, False, 3, True), (3, True, 3, True), (9, False, 9, True)} <= moments.keys()
    for number, (told, files) in enumerate(moments.items()):
        if told[0] in (3, 9):
            cut = tmp_path / str(number)
            put(files, cut)
            go(work(cut))
            assert end_of(cut) == calm()


def told_by(files: dict[str, bytes]) -> tuple[int, bool, int, bool]:
    """The step of the newest checkpoint, whether it is judged, and the last line of the log: its step, whether it is
    of a validation.
    """
    step = max((int(name.split("/")[1]) for name in files if name.endswith("manifest.json")), default=0)
    judged = step > 0 and json.loads(files[f"checkpoints/{step}/manifest.json"])["progress"]["judged"]
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    return step, judged, lines[-1]["step"] if lines else 0, bool(lines) and "validation loss" in lines[-1]


@contextmanager
def signalled(begun: TrainingContext) -> Iterator[TrainingContext]:
    with wish_to_stop() as wish:
        yield begun._replace(wish=wish)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (4, signal.SIGINT), (5, signal.SIGTERM)])
def test_a_signal_in_a_step_ends_with_a_checkpoint_of_it(tmp_path, step, number):
    with signalled(work(tmp_path)) as begun, pytest.raises(Stopped, match=f"stopped at step {step}, which is saved"):
        go(at_step(begun, step, lambda: send(number)))
    assert manifest.newest_whole(tmp_path, print) == step
    assert manifest.read_manifest(tmp_path, step)["progress"]["judged"]
    told = []
    go(work(tmp_path, told.append))
    assert told[0] == f"resuming from step {step}"
    assert end_of(tmp_path) == calm()


@pytest.mark.parametrize("step", [3, 9])
@pytest.mark.parametrize("before", [True, False])
def test_a_signal_when_the_state_is_judged(tmp_path, step, before):
    """Before or in the validation: the state is saved, and the same command begins with that validation."""
    with signalled(work(tmp_path)) as begun, pytest.raises(Stopped):
        if before:
            go(at_step(begun, step, send))
        else:
            calls = itertools.count(1)

            def judged(params):
                if next(calls) == step // 3:
                    send()
                return validate(params)

            go(begun._replace(validate=judged))
    assert manifest.newest_whole(tmp_path, print) == step
    assert not manifest.read_manifest(tmp_path, step)["progress"]["judged"]
    told = []
    go(work(tmp_path, told.append))
    assert told[1].startswith(f"step {step}: loss")
    assert end_of(tmp_path) == calm()


def test_a_signal_in_the_last_save_is_too_late(tmp_path):
    """All is done but the saving: that is finished, and the run has ended well."""
    wait = saving.Saver.wait

    def waiting(saver):
        if saver.pending and len(read_jsonl(tmp_path / "metrics.jsonl")) == 7:
            send()
        wait(saver)

    with signalled(work(tmp_path)) as begun, mock.patch.object(saving.Saver, "wait", waiting):
        go(begun)
        assert begun.wish.asked
    assert end_of(tmp_path) == calm()


def test_a_second_signal_ends_at_once(tmp_path):
    def twice():
        send()
        send()

    with signalled(work(tmp_path)) as begun, pytest.raises(Stopped):
        go(at_step(begun, 5, twice))
    assert manifest.newest_whole(tmp_path, print) == 3
    go(work(tmp_path))
    assert end_of(tmp_path) == calm()


# No room


class Disk:
    """Full from some step on until another, in one of the ways that a save can fail: the folder cannot be made, Orbax
    cannot write the state, the manifest cannot be written. (A limit on files' sizes would be more real, but stands
    for the whole process, and what the tests' own output goes to may be a file.)
    """

    def __init__(self, how: str):
        self.how, self.full = how, False

    def set(self, full: bool) -> None:
        self.full = full

    @contextmanager
    def holding(self, work: TrainingContext, begin: int, end: int) -> Iterator[TrainingContext]:
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

        def waiting(checkpointer):
            """One that has failed tells it again, as Orbax's does where it could not write its metadata."""
            try:
                wait(checkpointer)
            except OSError as error:
                failed.append((checkpointer, error))
            for one, error in failed:
                if one is checkpointer:
                    raise error

        work = at_step(at_step(work, begin, lambda: self.set(True)), end, lambda: self.set(False))
        try:
            with (
                at_once(),
                mock.patch.object(manifest, "write_atomically", writing),
                mock.patch.object(Path, "mkdir", making),
                mock.patch.object(PyTreeCheckpointHandler, "async_save", saving),
                mock.patch.object(AsyncCheckpointer, "wait_until_finished", waiting),
            ):
                yield work
        finally:
            self.set(False)

    def refuse(self, how: str) -> None:
        if self.full and self.how == how:
            raise OSError(28, "No space left on device")


def in_every_way(test: Callable[..., None]) -> Callable[..., None]:
    """How a save fails."""
    return pytest.mark.parametrize("how", ["folder", "state", "manifest"])(test)


@in_every_way
def test_a_full_disk_costs_a_checkpoint_and_no_more(tmp_path, how):
    """The save of step 6 fails; that of step 8, with the next line of the log, makes up for it."""
    told = []
    with Disk(how).holding(work(tmp_path, told.append), 5, 7) as begun:
        go(begun)
    loud = [line for line in told if line.startswith("THE CHECKPOINT")]
    assert len(loud) == 1
    assert loud[0].startswith("THE CHECKPOINT OF STEP 6 COULD NOT BE WRITTEN, and training goes on: ")
    assert manifest.checkpoint_steps(tmp_path) == [3, 8, 9]
    assert end_of(tmp_path) == calm()


def sleeping(how):
    """The loop's own pauses, and nobody else's: Orbax's threads wait by `time.sleep` too."""
    return mock.patch.object(loop, "time", types.SimpleNamespace(sleep=how, perf_counter=time.perf_counter))


@in_every_way
def test_a_disk_that_stays_full(tmp_path, how):
    """What was saved before stays; the end is an error, and with room the same command comes to the same end."""
    told, pauses = [], []
    with (
        Disk(how).holding(work(tmp_path, told.append), 5, 99) as begun,
        sleeping(pauses.append),
        pytest.raises(SeqlabError, match=r"(state of step 9 could not be saved: make room|metrics.jsonl could not)"),
    ):
        go(begun)
    assert pauses == [1, 5, 25]
    loud = [line.split()[4] for line in told if line.startswith("THE CHECKPOINT OF STEP")]
    assert loud == ["6", "8", "9", "9", "9", "9"]
    assert manifest.newest_whole(tmp_path, print) == 3
    go(work(tmp_path))
    assert end_of(tmp_path) == calm()


@in_every_way
def test_room_comes_back_when_all_is_done(tmp_path, how):
    disk = Disk(how)
    with (
        disk.holding(work(tmp_path), 5, 99) as begun,
        sleeping(lambda seconds: disk.set(seconds < 5)),
    ):
        go(begun)
    assert manifest.checkpoint_steps(tmp_path) == [3, 9]
    assert end_of(tmp_path) == calm()


def test_what_is_owed_for_its_manifest_alone_is_not_written_over(tmp_path):
    """With one checkpoint kept that would be to give up the only one there is."""
    only = {"checkpoints": dataclasses.replace(miniature.experiment().checkpoints, last=1)}
    disk, names = Disk("manifest"), []

    def state():  # each write chooses names of its own
        return {path.name for path in (tmp_path / "checkpoints/9/state").rglob("*")}

    def judged(params):
        if len(read_jsonl(tmp_path / "metrics.jsonl")) == 6:  # of step 9
            while manifest.checkpoint_steps(tmp_path)[-1] != 9:
                pass
            names.append(state())
            disk.set(True)
        return validate(params)

    with (
        disk.holding(work(tmp_path, **only), 99, 99) as begun,
        sleeping(lambda seconds: disk.set(seconds < 5)),
    ):
        go(begun._replace(validate=judged))
    assert names == [state()]
    assert end_of(tmp_path) == calm()


def test_stopped_when_nothing_can_be_saved(tmp_path):
    with (
        signalled(work(tmp_path)) as begun,
        Disk("folder").holding(begun, 4, 99) as full,
        pytest.raises(Stopped, match="stopped at step 5, which could not be saved"),
    ):
        go(at_step(full, 5, send))
    go(work(tmp_path))
    assert end_of(tmp_path) == calm()


def test_an_error_without_words_is_told(tmp_path):
    told = []
    saver = saving.Saver(tmp_path, 1, told.append)
    with mock.patch.object(manifest, "write_atomically", side_effect=MemoryError):
        saver.save({"a": np.ones(2)}, 1, {})
        saver.close()
    assert told == ["THE CHECKPOINT OF STEP 1 COULD NOT BE WRITTEN, and training goes on: MemoryError()"]
    assert saver.owed
    with (
        mock.patch.object(manifest, "write_atomically", side_effect=OSError(28, "No space left on device")),
        pytest.raises(SeqlabError, match="its checkpoint could not be written: .*No space left on device"),
    ):
        saving.save_alone(tmp_path, {"a": np.ones(2)}, 1, {})


# What is not finite


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("step", "good"), [(2, "there is no checkpoint yet"), (5, "checkpoint is of step 3")])
def test_stop(tmp_path, step, value, good):
    epoch, index = batch_at(step)
    begun = work(tmp_path)._replace(collate=spoiled([epoch, index], value=value))
    look = f"seqlab show-batch {tmp_path} --batch {epoch}/{index}"
    where = rf"step {step} is not finite \(epoch {epoch}, batch {index}; {look}\)"
    for _ in range(2):  # again: the same end
        with pytest.raises(SeqlabError, match=f"{where}; .*{good}"):
            go(begun)
    assert manifest.checkpoint_steps(tmp_path) == [3] * (step > 3)


def host_states(begun: TrainingContext) -> tuple[TrainingContext, dict[int, Any]]:
    """The state after each step, as it was last taken."""
    states = {}

    def step(state, batch):
        after, told = begun.step(state, batch)
        states[int(after.step)] = jax.tree.map(np.array, after)
        return after, told

    return begun._replace(step=step), states


def same(one: Any, other: Any) -> bool:
    return digests.digest_of(one) == digests.digest_of(other)


def test_skip(tmp_path):
    """A step that counts, and changes nothing: parameters, optimizer, average, carry and sums are those before it."""
    told = []
    begun, states = host_states(work(tmp_path, told.append, nonfinite="skip"))
    go(begun._replace(collate=spoiled(batch_at(5), batch_at(9))))
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
    loud = [line for line in told if "LEFT OUT" in line]
    assert [line.split()[6] for line in loud] == ["5", "9"]
    assert f"(epoch 0, batch 4; seqlab show-batch {tmp_path} --batch 0/4)" in loud[0]
    assert manifest.checkpoint_steps(tmp_path) == [3, 6, 9]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[9]))


def test_a_gradient_alone_that_is_not_finite():
    """Of the square root at zero: the loss is 0, its slope infinite."""
    e = miniature.experiment()
    optimizer = make_optimizer(e.optimizer, e.schedule, e.steps)

    def loss(params, batch, carry, key):
        return jnp.sqrt(params["x"]) * batch.sum(), jnp.float32(4), {}, None

    params = {"x": jnp.zeros(())}
    sums = dict.fromkeys(("loss", "weight", "gradient_norm", "steps"), jnp.float32(0))
    state = TrainState(jnp.int32(0), params, optimizer.init(params), None, sums)
    after, told = make_step(loss, optimizer, 0, skip=True)(state, jnp.ones(4))
    assert not told["finite"]
    assert after.params["x"] == after.sums["steps"] == 0


def test_skip_resumed(tmp_path):
    collate = spoiled(batch_at(5))
    for name in ("whole", "cut"):
        begun = work(tmp_path / name, nonfinite="skip")._replace(collate=collate)
        if name == "cut":
            cut_off(begun, 6)
        go(begun)
    assert end_of(tmp_path / "whole") == end_of(tmp_path / "cut")


def test_too_many_in_a_row(tmp_path):
    every = [batch_at(step) for step in range(1, 10)]
    with mock.patch.object(loop, "MOST_IN_A_ROW", 2), mock.patch.object(recovery, "MOST_IN_A_ROW", 2):
        for name, mode, bad, good in (("a", "skip", every[3:], 3), ("b", "rollback", every[4:], 3)):
            told = []
            with pytest.raises(SeqlabError, match=f"the last good checkpoint is of step {good}"):
                go(work(tmp_path / name, told.append, nonfinite=mode)._replace(collate=spoiled(*bad)))
            assert sum("IS NOT FINITE" in line for line in told) == 2
        with pytest.raises(
            SeqlabError, match=r"no checkpoint yet\. Try .*, in a new run\. It was given up after 2 in a row$"
        ):
            go(work(tmp_path / "d", nonfinite="rollback")._replace(collate=spoiled(*every)))
        told = []
        apart = spoiled(every[0], every[1], every[3], every[4], every[6], every[7])
        go(work(tmp_path / "c", told.append, nonfinite="skip")._replace(collate=apart))
        assert sum("IS NOT FINITE" in line for line in told) == 6


class Without(miniature.Plan):
    """Without some batches."""

    def __init__(self, *places: list[int]):
        self.places = places

    def batches(self, seed, epoch):
        every = super().batches(seed, epoch)
        return [rows for index, rows in enumerate(every) if [epoch, index] not in self.places]


@functools.cache
def end_without(*steps: int) -> End:
    """Of a run whose data never had the batches of those steps."""
    with tempfile.TemporaryDirectory() as folder:
        go(work(Path(folder), nonfinite="rollback")._replace(plan=Without(*map(batch_at, steps))))
        return end_of(Path(folder))


def fed(begun: TrainingContext) -> tuple[TrainingContext, dict[int, list[float]]]:
    """The targets that each step was fed, as it was last taken."""
    found = {}

    def step(state, batch):
        found[int(state.step) + 1] = np.asarray(batch.targets).tolist()
        return begun.step(state, batch)

    return begun._replace(step=step), found


@pytest.mark.parametrize("bad", [(1,), (3,), (5, 6), (4, 8), (9,)], ids=str)
def test_rollback(tmp_path, bad):
    """The run ends as one whose data never had those batches: state, log and trail. What it was fed is what
    `seqlab show-batch` counts out.
    """
    told = []
    places = [batch_at(step) for step in bad]
    begun, seen = fed(work(tmp_path, told.append, nonfinite="rollback"))
    go(begun._replace(collate=spoiled(*places)))
    end, expected = end_of(tmp_path), end_without(*bad)
    assert (end.state, end.log, end.trail) == (expected.state, expected.log, expected.trail)
    left_out = end.progress["left_out"]
    assert left_out == places
    epoch, index = batch_at(9, left_out)
    assert end.progress == {**expected.progress, "left_out": places, "epoch": epoch, "index": index + 1}
    for step in range(1, 10):
        place = list(place_of_step(itertools.repeat(5), step, left_out))
        assert place == batch_at(step, left_out)
        rows = miniature.Plan().batches(miniature.SEED, place[0])[place[1]]
        assert seen[step] == miniature.collate(rows).targets.tolist()
    loud = [line for line in told if "ROLLED BACK" in line]
    assert len(loud) == len(bad)
    first = bad[0]
    good = 3 * ((first - 1) // 3)
    assert f"STEP {first} IS NOT FINITE: ROLLED BACK to step {good}, to go on without that batch" in loud[0]
    assert loud[0].endswith("--batch {}/{})".format(*places[0]))


@pytest.mark.parametrize("cut", [4, 5, 8])
def test_killed_after_a_rollback(tmp_path, cut):
    """Before the next checkpoint, so that nothing on the disk tells of it, or after that."""
    begun = work(tmp_path, nonfinite="rollback")._replace(collate=spoiled(batch_at(5)))
    taken = []

    def kill_the_second_time():
        taken.append(cut)
        if len(taken) == (2 if cut < 6 else 1):
            raise Killed

    with pytest.raises(Killed):
        go(at_step(begun, cut, kill_the_second_time))
    go(begun)
    end, expected = end_of(tmp_path), end_without(5)
    assert (end.state, end.log, end.trail) == (expected.state, expected.log, expected.trail)
    assert end.progress["left_out"] == [batch_at(5)]


def test_lines_that_the_log_has_lost_are_told(tmp_path):
    cut_off(work(tmp_path), 8)
    log = tmp_path / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if not line.startswith('{"step": 4,')))
    told = []
    go(work(tmp_path, told.append))
    assert [line for line in told if "LOST" in line] == [
        f"{log} HAS LOST LINES, the first of them of step 4; what comes is added to the rest"
    ]
    assert [line for line in calm().log.decode().splitlines(keepends=True) if not line.startswith('{"step": 4,')] == (
        log.read_text().splitlines(keepends=True)
    )


def test_a_validation_that_is_not_finite(tmp_path):
    """An error, whatever is done about steps; the checkpoint waits to be judged."""
    told, calls = [], itertools.count(1)
    begun = work(tmp_path, told.append, nonfinite="rollback")
    with pytest.raises(
        SeqlabError, match=r"the validation loss of step 6 is not finite.*in a new run, with --init-from"
    ):
        go(begun._replace(validate=lambda params: {"loss": np.nan} if next(calls) == 2 else validate(params)))
    assert not any("ROLLED" in line for line in told)
    assert not manifest.read_manifest(tmp_path, 6)["progress"]["judged"]
    assert manifest.choose_step(tmp_path) == 3
    go(work(tmp_path))
    assert end_of(tmp_path) == calm()


# The checkpoints that are kept


def tree(value: float) -> dict[str, Any]:
    return {"params": {"a": np.full(3, value, np.float32)}, "step": np.int32(value)}


def test_the_best_is_kept_beside_the_last(tmp_path):
    """Who is best is known after the save, so that a checkpoint is pruned by what its successor tells."""
    saver = saving.Saver(tmp_path, 1)
    kept = []
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 5)):
        saver.save(tree(step), step, {"best_step": 2 if step > 2 else 1, "judged": False})
        saver.wait()
        saver.amend(step, {"best_step": best, "judged": True})
        saver.wait()
        kept.append(manifest.checkpoint_steps(tmp_path))
        assert manifest.read_manifest(tmp_path, step)["progress"] == {"best_step": best, "judged": True}
        assert manifest.choose_step(tmp_path) == best
    assert kept == [[1], [2], [2, 3], [2, 4], [5]]
    saver.amend(3, {"best_step": 3})  # long gone
    saver.close()
    assert manifest.checkpoint_steps(tmp_path) == [5]
    assert manifest.newest_whole(tmp_path, print) == 5


def test_a_step_is_saved_again(tmp_path):
    """By another attempt: what was there is gone, all of it."""
    for value in (1.0, 2.0):
        saving.save_alone(tmp_path, {**tree(7), "params": {"a": np.full(3, value)}}, 7, {"value": value})
        assert checkpoint.restore(tmp_path, 7)["params"]["a"].tolist() == [value] * 3
        assert manifest.read_manifest(tmp_path, 7)["progress"] == {"value": value}


def test_the_moving_average_is_what_is_judged(tmp_path):
    """share * average + (1 - share) * parameters, from the first parameters on."""
    begun, states = host_states(work(tmp_path))
    judged = []
    go(begun._replace(validate=lambda params: judged.append(jax.tree.map(np.array, params)) or validate(params)))
    average = miniature.first_state().params
    for step, state in sorted(states.items()):
        share = min(0.9, step / (step + 9))
        average = {name: share * average[name] + (1 - share) * state.params[name] for name in average}
        for name in average:
            np.testing.assert_allclose(state.average[name], average[name], rtol=1e-5)
    assert [same(seen, states[step].average) for step, seen in zip((3, 6, 9), judged, strict=True)] == [True] * 3
    assert not same(states[9].average, states[9].params)
    saved = checkpoint.restore(tmp_path, 9)
    assert same(checkpoint.parameters_of(saved), states[9].average)
    mean, steps = checkpoint.average(tmp_path, 2)
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
    assert prints[-1] == prints[-2]  # sums are of the log, and start anew with its next line


def test_parameters_alone_do_not_train_on(tmp_path):
    for kind in ("averaged", "imported"):
        saving.save_alone(tmp_path, tree(1), 1, {kind: [1]})
        with pytest.raises(SeqlabError, match=f"holds {kind} parameters, which do not train on: .* --init-from"):
            go(work(tmp_path))


def test_the_average_is_what_others_take_from_a_run(tmp_path):
    """Decoding, and a run that starts from it; unless its arrays are not those of the model."""
    tokenizers = dict.fromkeys(("source", "target"), tiny_tokenizer())
    save_untrained(tiny_experiment(), tokenizers, tmp_path / "run")
    params = checkpoint.restore(tmp_path / "run", 1)["params"]
    average = jax.tree.map(lambda x: x + 1, params)
    saving.save_alone(tmp_path / "run", {"params": params, "average": average}, 2, {"best_step": 2})
    assert same(loading.load(tmp_path / "run").params, average)
    assert same(load_params(tmp_path / "run", params), average)
    saving.save_alone(tmp_path / "run", {"params": params, "average": {"x": np.ones(3)}}, 3, {})
    with pytest.raises(SeqlabError, match="the array"):
        loading.load(tmp_path / "run", "3")


def test_what_may_change_from_one_part_of_a_run_to_the_next(tmp_path):
    """How a run is spread over devices and watched; nothing that its numbers hang on."""
    data = Prepared(tmp_path, {"train": 1}, {"train": "0" * 64}, {}, {})

    def opened(**changes: Any) -> None:
        open_run(dataclasses.replace(tiny_experiment(), **changes), {}, data, tmp_path / "run", "seqlab train x")

    opened()
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    opened()
    for spread in (Parallel("pmap"), Parallel(fsdp=2, tensor=2), Parallel(heartbeat=7)):
        opened(parallel=spread)
    opened(nonfinite="rollback", hash_every=3)
    for name, value in (("seed", 1), ("accumulate", 2), ("steps", 11), ("log_every", 4)):
        with pytest.raises(SeqlabError, match=f"is a run of another experiment:\n  {name}: .*-> {value}\nchoose"):
            opened(**{name: value})
    with pytest.raises(SeqlabError, match="the data of .* has changed since it began"):
        open_run(tiny_experiment(), {}, data._replace(hashes={"train": "1" * 64}), tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_cover_everything_once(processes):
    for count in (0, 1, 5, 6, 13):
        shares = []
        for process in range(processes):
            with mock.patch.multiple(jax, process_count=lambda: processes, process_index=lambda one=process: one):
                shares.append(hosts.share_of(count))
        assert list(itertools.chain(*shares)) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_the_first_does_alone():
    """All have what it gives, or its error; here of one process, and of a second that does nothing itself."""
    assert hosts.gather({"a": [1]}) == [{"a": [1]}]
    assert hosts.on_process_zero(lambda: (3, "x")) == (3, "x")

    def fail():
        raise SeqlabError("no room")

    with pytest.raises(SeqlabError, match="^no room$"):
        hosts.on_process_zero(fail)
    for told, expected in (([7, None], 7), ([None, "no room"], None)):
        with (
            mock.patch.object(jax, "process_index", return_value=1),
            mock.patch.object(hosts, "gather", lambda own, told=told: [told, own]),
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

    def judged(params):
        while not manifest.checkpoint_steps(tmp_path):
            pass
        states.append(listing.look(tmp_path).state)
        return validate(params)

    go(work(tmp_path)._replace(validate=judged))
    assert listing.look(tmp_path).state == "finished"
    progress = manifest.read_manifest(tmp_path, 9)["progress"]
    files = manifest.read_manifest(tmp_path, 9)["files"]
    manifest.write_manifest(tmp_path, 9, {**progress, "judged": False}, files)
    assert listing.look(tmp_path).state == "dead"
    assert states == ["dead"] * 3
