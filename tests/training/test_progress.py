"""The progress of a run: its JSON form, and how a validation changes it."""

import dataclasses
import json

import pytest

from seqlab.config import Validation
from seqlab.system.errors import SeqlabError
from seqlab.training.progress import Progress

STORED = {
    "epoch": 2,
    "index": 5,
    "left_out": [[0, 4], [1, 0]],
    "best": 2.5,
    "best_step": 6,
    "waited": 1,
    "judged": False,
    "stopped": False,
}


def test_json(tmp_path):
    """The names and their order match a manifest."""
    progress = Progress.from_json(STORED, tmp_path, 6)
    assert progress.left_out == ((0, 4), (1, 0))
    assert json.dumps(progress.to_json()) == json.dumps(STORED)
    assert list(Progress().to_json()) == list(STORED)
    assert Progress.from_json(Progress().to_json(), tmp_path, 0) == Progress()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": "5"}, "checkpoint 6 lacks the progress of the run: another version of seqlab wrote it"),
        ({"left_out": None}, "checkpoint 6 lacks the progress of the run"),
        ({"judged": 1}, "checkpoint 6 lacks the progress of the run"),
        ({"epoch": True}, "checkpoint 6 lacks the progress of the run"),
    ],
)
def test_anything_else_is_one_error(tmp_path, changes, message):
    with pytest.raises(SeqlabError, match=message):
        Progress.from_json({**STORED, **changes}, tmp_path, 6)


def test_batches_are_left_out_once():
    progress = Progress(left_out=((0, 4),)).without_batches([(1, 2), (0, 4)])
    assert progress.left_out == ((0, 4), (1, 2))


@pytest.mark.parametrize(
    ("metric", "values", "best_steps"),
    [("loss", (3.0, 2.0, 2.0, 1.0), (1, 2, 2, 4)), ("bleu", (3.0, 2.0, 4.0, 4.0), (1, 1, 3, 3))],
)
def test_the_best_validation(metric, values, best_steps):
    """A lower loss or a higher BLEU is better; an equal value is not."""
    progress = Progress(judged=False)
    validation = Validation(metric=metric)
    for step, (value, best_step) in enumerate(zip(values, best_steps, strict=True), 1):
        progress = progress.after_validation(validation, step, {"loss": 9.0, metric: value})
        assert (progress.best_step, progress.best) == (best_step, values[best_step - 1])
        assert (progress.judged, progress.stopped) == (True, False)


def test_patience():
    validation = dataclasses.replace(Validation(), patience=2)
    progress = Progress().after_validation(validation, 1, {"loss": 1.0})
    progress = progress.after_validation(validation, 2, {"loss": 2.0})
    assert (progress.waited, progress.stopped) == (1, False)
    progress = progress.after_validation(validation, 3, {"loss": 2.0})
    assert (progress.waited, progress.stopped) == (2, True)
