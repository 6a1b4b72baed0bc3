"""Masked-token prediction (Devlin et al. 2019), and a classifier that is initialized from its encoder."""

import json

import numpy as np
import pytest
from seqlab_parts.models.masked_lm import MaskedLM
from seqlab_parts.tasks.masked_tokens import TEXT, MaskedTokens

from seqlab.config import Schedule
from seqlab.datasets.local_files import LocalFiles
from seqlab.encoders.transformer import TransformerEncoder
from seqlab.models.classifier_head import ClassifierHead
from seqlab.runs import loading
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.training.prepare import plan_batches, prepare_experiment
from seqlab.training.train import train
from tests.command import call
from tests.proofs.conftest import PARTS
from tests.proofs.runs import check_run, leaves_of, quiet, small

ENCODER = TransformerEncoder(layers=1, dim=16, heads=2, hidden=24, dropout=0.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a pre-trained run."""
    home = tmp_path_factory.mktemp("masked")
    for split, count in (("train", 60), ("validation", 8), ("test", 8)):
        rows = [{"text": f"a {'warm' if i % 2 else 'cold'} day {i}", "kind": "ab"[i % 2]} for i in range(count)]
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(pretraining(home), home / "run", home / "data", say=quiet)
    return home


def files(home, **columns):
    return LocalFiles(*(str(home / f"{split}.jsonl") for split in ("train", "validation", "test")), **columns)


def pretraining(home, **changes):
    return small(MaskedLM(ENCODER), MaskedTokens(), files(home, source="text"), **changes)


def classification(home, **changes):
    parts = {"initialize": (("encoder", str(home / "run"), "encoder"),)}
    data = files(home, source="text", label="kind")
    return small(ClassifierHead(ENCODER, dropout=0.0), Classification(), data, **parts | changes)


def test_every_epoch_masks_other_tokens(home):
    prepared = prepare_experiment(pretraining(home), home / "data", home / "run", say=quiet)
    codec, plan = prepared.codecs["source"], plan_batches(prepared.experiment, prepared.corpus, quiet)
    batch_plan = plan.batches(0, 0)[0]
    first, second, again = (prepared.collate(batch_plan, epoch) for epoch in (0, 1, 0))
    assert np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.weights, second.weights)
    assert np.array_equal(first.targets, second.targets)
    masked = first.inputs.ids == TEXT.reserved_id("[MASK]", codec)
    assert np.array_equal(masked, first.weights > 0)
    assert (first.weights.sum(1)[: len(batch_plan.indices)] >= 1).all()
    task = prepared.experiment.task
    evaluated = [task.collate(prepared.corpus, batch_plan, prepared.codecs).weights for _ in range(2)]
    assert np.array_equal(*evaluated)


def test_the_mask_is_no_text(home):
    codec = loading.load(home / "run").codecs["source"]
    ids = codec.encode(["[MASK]"])[0]
    assert TEXT.reserved_id("[MASK]", codec) not in ids
    assert codec.decode(ids) == "[MASK]"
    with pytest.raises(SeqlabError, match="no special token .X."):
        TEXT.reserved_id("[X]", codec)


def test_it_learns_resumes_and_is_the_same_on_devices(home):
    check_run(pretraining(home), home / "run", home / "data")


def test_a_classifier_starts_from_the_encoder(home, capsys):
    """A step with learning rate zero leaves the pre-trained encoder unchanged. Then the classifier trains and
    predicts.
    """
    tokenizer, lines = home / "run" / "codecs" / "source.sentencepiece", []
    still = classification(home, steps=1, schedule=Schedule(name="constant", peak=0.0, warmup=0))
    train(still, home / "still", home / "data", tokenizer=tokenizer, say=lines.append)
    assert any(line.startswith("encoder: ") for line in lines)
    pretrained, taken = leaves_of(home / "run"), leaves_of(home / "still")
    encoder = [path for path in taken if path.startswith("params/encoder/")]
    assert encoder == [path for path in pretrained if path.startswith("params/encoder/")]
    assert all(np.array_equal(taken[path], pretrained[path]) for path in encoder)
    train(classification(home), home / "classifier", home / "data", tokenizer=tokenizer, say=quiet)
    (home / "lines.txt").write_text("a warm day 3\na cold day 4\n")
    arguments = ["predict", "classifier", "--input", "lines.txt", "--json", "--parts", str(PARTS)]
    assert call(home, *arguments) == 0
    predictions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [prediction["line"] for prediction in predictions] == [0, 1]
    assert all(p["text"] in "ab" and 0.5 <= p["score"] <= 1 for p in predictions)
