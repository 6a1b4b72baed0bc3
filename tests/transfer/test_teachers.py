"""The losses of distillation, against NumPy, and a classifier that learns from another."""

import functools

import jax
import numpy as np
import pytest

from seqlab.encoders.kim import KimEncoder
from seqlab.encoders.mean import MeanEncoder
from seqlab.layers.nesting import with_fields
from seqlab.models.classifier_head import ClassifierHead
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.tasks.classification_distillation import ClassificationDistillation
from seqlab.tasks.distillation import Distillation
from seqlab.training.train import train
from seqlab.types import Batch, Context, Reference
from tests.proofs.runs import check_run, quiet, small
from tests.subjects import subject
from tests.transfer.splits import day_of_kind, splits_of, write_splits


def softmax(x):
    return np.exp(x - np.logaddexp.reduce(x, axis=-1, keepdims=True))


def log_softmax(x):
    return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def loss_of(task, s, teacher_params, train):
    batch = Batch(s.inputs, s.prefix, s.targets, s.weights)
    context = Context(
        jax.random.key(0) if train else None, references={"teacher": Reference(s.model, teacher_params)}
    )
    return jax.jit(lambda params, batch: task.loss(s.model, params, batch, context)[:3])(s.params, batch)


@pytest.mark.parametrize(("share", "temperature"), [(0.0, 1.0), (0.3, 1.0), (1.0, 2.0)])
def test_the_loss_of_words(share, temperature):
    """The loss is share T^2 H(teacher, student) + (1 - share) H(data, student) (Hinton et al. 2015)."""
    s, teacher = subject("transformer", dropout=0.0), subject("transformer", seed=1, dropout=0.0).params
    task = Distillation(label_smoothing=0.0, share=share, temperature=temperature)
    total, weight, sums = loss_of(task, s, teacher, train=True)
    logits, expected = (
        np.asarray(s.forward(params, s.inputs, s.prefix), np.float64) for params in (s.params, teacher)
    )
    soft = -(softmax(expected / temperature) * log_softmax(logits / temperature)).sum(-1) * temperature**2
    hard = -np.take_along_axis(log_softmax(logits), s.targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(total, ((share * soft + (1 - share) * hard) * s.weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["nll"], (hard * s.weights).sum(), rtol=1e-5)
    assert weight == s.weights.sum()
    judged, _, _ = loss_of(task, s, teacher, train=False)
    np.testing.assert_allclose(judged, (hard * s.weights).sum(), rtol=1e-5)


def test_the_loss_of_logits():
    """The loss is the mean squared error of the logits (Tang et al. 2019)."""
    s, teacher = subject("classifier_head"), subject("classifier_head", seed=1).params
    s = s._replace(model=with_fields(s.model, dropout=0.0))
    total, weight, _ = loss_of(ClassificationDistillation(), s, teacher, train=True)
    logits, expected = (np.asarray(s.forward(params, s.inputs, None), np.float64) for params in (s.params, teacher))
    np.testing.assert_allclose(total, (((logits - expected) ** 2).mean(-1) * s.weights).sum(), rtol=1e-5)
    assert weight == s.weights.sum()


@pytest.mark.parametrize("task", [Distillation, ClassificationDistillation])
def test_refused(task):
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(SeqlabError, match="task.share must be from 0 to 1"):
            task(share=share)
    with pytest.raises(SeqlabError, match="distillation needs a teacher: --references teacher RUN"):
        task().loss(None, None, None, Context())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_temperatures(temperature):
    with pytest.raises(SeqlabError, match="task.temperature must be above 0"):
        Distillation(temperature=temperature)


def test_a_classifier_learns_resumes_and_is_the_same_on_devices(tmp_path):
    write_splits(tmp_path, day_of_kind)
    data = splits_of(tmp_path, source="text", label="kind")
    head = functools.partial(ClassifierHead, dropout=0.0)
    teacher = small(head(MeanEncoder(dim=8, hidden=12, dropout=0.0)), Classification(), data)
    train(teacher, tmp_path / "teacher", tmp_path / "data", say=quiet)
    encoder = KimEncoder(dim=8, widths=(2, 3), filters=4, dropout=0.0)
    references = (("teacher", "../teacher"),)
    student = small(head(encoder), ClassificationDistillation(), data, references=references)
    train(student, tmp_path / "student", tmp_path / "data", say=quiet)
    check_run(student, tmp_path / "student", tmp_path / "data")
