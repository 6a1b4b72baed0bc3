"""Checkpoints: saving, restoring, damage, and failed saves."""

import json
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.runs import averaging, checkpoint, manifest, saving
from seqlab.system.errors import SeqlabError
from tests import fuzz


def tree(value=1.0):
    return {
        "step": jnp.int32(3),
        "params": {"a": jnp.full((2, 3), value), "b": [jnp.arange(4)]},
        "sums": {"x": value},
    }


def saved(run, steps, keep=2, best=None, every=1):
    saver = saving.Saver(run, keep, every=every)
    for step in steps:
        saver.save(tree(float(step)), step, {"best_step": best})
    saver.close()


def test_the_last_and_the_best_are_kept(tmp_path):
    saved(tmp_path, [1, 2, 3, 4, 5], best=2)
    assert manifest.checkpoint_steps(tmp_path) == [2, 4, 5]
    assert [manifest.choose_step(tmp_path, name) for name in ("best", "last", "4")] == [2, 5, 4]
    with pytest.raises(SeqlabError, match="no checkpoint '3': choose best, last or a step \\(2, 4, 5\\)"):
        manifest.choose_step(tmp_path, "3")


def test_a_checkpoint_at_a_stop_is_replaced(tmp_path):
    """It takes the place of no validated checkpoint, and is not averaged."""
    saved(tmp_path, [2, 4, 5], every=2)
    assert manifest.checkpoint_steps(tmp_path) == [2, 4, 5]
    assert averaging.mean_parameters(tmp_path, 2, every=2, end=7)[1] == [2, 4]
    saved(tmp_path, [6, 7], every=2)
    assert manifest.checkpoint_steps(tmp_path) == [4, 6, 7]
    assert averaging.mean_parameters(tmp_path, 3, every=2, end=7)[1] == [4, 6, 7]


def test_a_step_without_a_manifest_does_not_exist(tmp_path):
    saved(tmp_path, [1, 2])
    (tmp_path / "checkpoints" / "2" / "manifest.json").unlink()
    assert manifest.checkpoint_steps(tmp_path) == [1]
    saved(tmp_path, [2])  # overwrites the leftovers of an interrupted save
    assert checkpoint.restore(tmp_path, 2)["params"]["a"].tolist() == np.full((2, 3), 2.0).tolist()


def test_no_checkpoint(tmp_path):
    with pytest.raises(SeqlabError, match="has no checkpoint: train it first"):
        manifest.choose_step(tmp_path)


def test_damage_is_seen(tmp_path):
    saved(tmp_path, [1])
    path = max((tmp_path / "checkpoints" / "1" / "state").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SeqlabError, match="damaged"):
        checkpoint.restore(tmp_path, 1)


@pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_state_behind_a_right_hash_is_one_error(tmp_path, caplog):
    """Orbax logs nothing, since its log line might have half of a surrogate pair, like the damaged file."""
    saved(tmp_path, [1])
    logging.getLogger("absl").filters.clear()
    for path in (tmp_path / "checkpoints" / "1" / "state").iterdir():
        if path.is_file():
            path.write_text('{"tree_metadata": {"\\ud800": 1}}')
    fuzz.seal_checkpoint(tmp_path)
    with pytest.raises(SeqlabError, match="the checkpoint cannot be read: delete the folder"):
        checkpoint.restore(tmp_path, 1)
    assert caplog.records == []


def test_restored_as_it_was(tmp_path):
    saved(tmp_path, [7])
    like = tree(0.0)
    tree_restored = checkpoint.restore(tmp_path, 7, like)
    assert tree_restored["params"]["b"][0].dtype == np.int32
    assert tree_restored["params"]["a"].tolist() == np.full((2, 3), 7.0).tolist()


def test_fingerprint(tmp_path):
    for name, steps in (("a", [1]), ("b", [1]), ("c", [2])):
        saved(tmp_path / name, steps)
    prints = [checkpoint.fingerprint(tmp_path / name, step) for name, step in (("a", 1), ("b", 1), ("c", 2))]
    assert prints[0] == prints[1] != prints[2]
    assert len(prints[0]) == 64


def test_average(tmp_path):
    saved(tmp_path, [4, 5, 6], keep=3)
    mean, steps = averaging.mean_parameters(tmp_path, 2, every=1, end=6)
    assert (steps, mean["a"].tolist()) == ([5, 6], np.full((2, 3), 5.5).tolist())
    assert mean["a"].dtype == np.float32
    with pytest.raises(
        SeqlabError, match="cannot average 4 checkpoints: .* only 3 consecutive ones .steps 4, 5, 6.;"
    ):
        averaging.mean_parameters(tmp_path, 4, every=1, end=6)
    with pytest.raises(SeqlabError, match="must be at least 1, not 0"):
        averaging.mean_parameters(tmp_path, 0, every=1, end=6)


def test_an_older_best_checkpoint_is_not_averaged(tmp_path):
    """Between it and the last checkpoints others were removed."""
    saved(tmp_path, [2, 6, 8], keep=3)
    assert averaging.mean_parameters(tmp_path, 2, every=2, end=8)[1] == [6, 8]
    with pytest.raises(SeqlabError, match="cannot average 3 checkpoints: .* only 2 consecutive ones .steps 6, 8.;"):
        averaging.mean_parameters(tmp_path, 3, every=2, end=8)


def test_a_failed_save_is_told_and_owed(tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    messages = []
    saver = saving.Saver(tmp_path, 2, messages.append)
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "write_atomically", full)
        saver.save(tree(), 1, {})
        saver.wait()
    assert saver.failure
    assert [line.partition(",")[0] for line in messages] == ["THE CHECKPOINT OF STEP 1 COULD NOT BE WRITTEN"]
    assert "No space left on device" in messages[0]
    assert manifest.checkpoint_steps(tmp_path) == []
    saver.save(tree(), 1, {})
    saver.close()
    assert not saver.failure
    assert manifest.checkpoint_steps(tmp_path) == [1]


def test_room_is_asked_for_before_anything_is_written(tmp_path, monkeypatch):
    """With several processes, no process then waits for one that failed."""
    messages = []
    saver = saving.Saver(tmp_path, 2, messages.append)
    saver.save(tree(), 1, {})
    size = sum(np.asarray(x).nbytes for x in jax.tree.leaves(tree()))
    free = size + saving.HEADROOM - 1
    with monkeypatch.context() as patched:
        patched.setattr(saving.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
        saver.save(tree(), 2, {})
        assert not saver.pending
        assert messages == [f"THE CHECKPOINT OF STEP 2 COULD NOT BE WRITTEN, training continues: {saver.failure}"]
        assert saver.failure == f"{free + 1:,} bytes are needed, but the disk has only {free:,} left"
        free += 1
        saver.save(tree(), 2, {})
    saver.close()
    assert manifest.checkpoint_steps(tmp_path) == [1, 2]


def test_the_best_is_asked_for_and_not_there(tmp_path):
    saved(tmp_path, [1, 3], best=2)
    with pytest.raises(SeqlabError, match="the best checkpoint, 2, is missing: choose last or a step \\(1, 3\\)"):
        manifest.choose_step(tmp_path)
    (tmp_path / "checkpoints" / "3" / "manifest.json").write_text("{}")
    with pytest.raises(SeqlabError, match="choose --checkpoint 1$"):
        manifest.choose_step(tmp_path)
    assert manifest.choose_step(tmp_path, "1") == 1


def test_manifest_names_every_file(tmp_path):
    saved(tmp_path, [1])
    folder = tmp_path / "checkpoints" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {str(p.relative_to(folder / "state")) for p in (folder / "state").rglob("*") if p.is_file()}
    assert set(manifest["files"]) == files
    assert manifest["step"] == 1
