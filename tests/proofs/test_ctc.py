"""Connectionist temporal classification on synthetic frames, with half as many output positions as inputs."""

import itertools
import json

import numpy as np
import optax
import pytest
from seqlab_parts.datasets.tones import Tones
from seqlab_parts.models.ctc_head import CTCHead
from seqlab_parts.readers.frame_stack import FrameStack
from seqlab_parts.tasks.ctc import CTC

from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.evaluation import evaluate
from seqlab.runs import loading
from seqlab.training.train import train
from tests.command import call
from tests.proofs.conftest import PARTS
from tests.proofs.runs import check_run, quiet, small


def transcription(**changes):
    encoder = RecurrentEncoder(FrameStack(), dim=32, both_ways=True)
    return small(CTCHead(encoder), CTC(), Tones(train=400), **{"steps": 12} | changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("ctc")
    train(transcription(), home / "run", home / "data", say=quiet)
    return home


def test_it_resumes_and_is_the_same_on_devices(home):
    check_run(transcription(), home / "run", home / "data")


@pytest.mark.long
def test_it_learns_to_transcribe(home, capsys):
    """Sizes are set from the data: features of the reader from the codec, symbols of the head from the target."""
    train(transcription(steps=200, hash_every=0), home / "long", home / "data", say=quiet)
    run = loading.load(home / "long")
    assert (run.model.encoder.reader.features, run.model.vocabulary) == (4, 4)
    scores = {score.name: score.value for score in evaluate.evaluate(run, "test", home / "data").scores}
    assert scores["exact match"] > 60
    example = next(Tones().splits()["test"])
    (home / "frames.jsonl").write_text(json.dumps(example) + "\n")
    arguments = ["predict", "long", "--input", "frames.jsonl", "--json", "--parts", str(PARTS)]
    assert call(home, *arguments) == 0
    (prediction,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(prediction["times"]) == len(prediction["text"].split())
    assert sorted(prediction["times"]) == prediction["times"]
    (home / "frames.jsonl").write_text(json.dumps(example) + "\n" + json.dumps({**example, "source": "1 2 x"}) + "\n")
    assert call(home, *arguments) == 2
    assert capsys.readouterr().err.startswith("seqlab: frames.jsonl:2: expected finite numbers")
    (home / "frames.jsonl").write_text("")
    assert call(home, *arguments) == 0
    assert capsys.readouterr().out == ""


def test_the_loss_sums_over_all_alignments():
    """Compares the loss with an enumeration of all paths of a short sequence in NumPy."""
    logits = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)
    labels = np.array([[1, 2, 0]])
    log_probs = logits[0] - np.logaddexp.reduce(logits[0], axis=-1, keepdims=True)
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        collapsed = [k for k, _ in itertools.groupby(path) if k]
        if collapsed == [1, 2]:
            total += np.exp(sum(log_probs[t, k] for t, k in enumerate(path)))
    loss = optax.ctc_loss(logits, np.zeros((1, 4)), labels, np.array([[0.0, 0.0, 1.0]]), blank_id=0)
    assert float(loss[0]) == pytest.approx(-np.log(total), rel=1e-4)
