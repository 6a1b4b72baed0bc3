"""Captions of synthetic images: a generator with a source that is not text, decoded by the same search."""

import numpy as np
import pytest
from seqlab_parts.datasets.bars import Bars
from seqlab_parts.readers.conv_map import ConvMap
from seqlab_parts.tasks.captioning import Captioning

from seqlab.evaluation import evaluate
from seqlab.models.bahdanau import Bahdanau
from seqlab.runs import loading
from seqlab.training.prepare import prepare_experiment
from seqlab.training.train import train
from tests.command import call
from tests.proofs.conftest import PARTS
from tests.proofs.runs import check_run, quiet, small


def captioning(**changes):
    model = Bahdanau(ConvMap(), dim=32, dropout=0.0, tie="target")
    return small(model, Captioning(label_smoothing=0.0), Bars(), **changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("captions")
    train(captioning(), home / "run", home / "data", say=quiet)
    return home


def test_it_resumes_and_is_the_same_on_devices(home):
    check_run(captioning(), home / "run", home / "data")


def test_an_image_with_two_captions_is_stored_once(home):
    prepared = prepare_experiment(captioning(), home / "data", home / "run", say=quiet)
    images = {bytes(np.ascontiguousarray(prepared.corpus.row("source", i))) for i in range(200)}
    assert len(prepared.corpus.values["source"]) == 8 * len(images) < 8 * 200


@pytest.mark.long
def test_it_learns_to_say_where_the_bar_is(home, capsys):
    train(captioning(steps=150, hash_every=0), home / "long", home / "data", say=quiet)
    run = loading.load(home / "long")
    scores = {score.name: score.value for score in evaluate.evaluate(run, "test", home / "data", beam=2).scores}
    assert scores["exact match"] > 80 > scores["exact match (always left)"]
    arguments = ["evaluate", "long", "--data-dir", "data", "--beam", "3", "--parts", str(PARTS)]
    assert call(home, *arguments) == 0
    assert "exact match" in capsys.readouterr().out
