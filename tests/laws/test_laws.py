"""Every law, on every part found. Adding a part changes nothing here."""

import functools

import pytest

from seqlab import catalogue, laws


@functools.cache
def subject(name: str) -> laws.Subject:
    return laws.make_subject(catalogue.module("models", name).TINY)


def named(functions):
    return pytest.mark.parametrize("law", functions, ids=lambda law: law.__name__)


@pytest.mark.parametrize("model", catalogue.names("models"))
@named(laws.MODEL_LAWS)
def test_model(law, model):
    law(subject(model))


VARIANTS = [
    (name, index)
    for name in catalogue.names("models")
    for index in range(len(getattr(catalogue.module("models", name), "VARIANTS", ())))
]


@functools.cache
def variant(name: str, index: int) -> laws.Subject:
    return laws.make_subject(catalogue.module("models", name).VARIANTS[index])


@pytest.mark.parametrize(("model", "index"), VARIANTS)
@named(
    [laws.pads_are_inert, laws.future_is_unseen, laws.step_agrees_with_features, laws.gradients_reach_every_parameter]
)
def test_variant(law, model, index):
    """The fields TINY leaves at their defaults, under the laws that hinge on them."""
    law(variant(model, index))


@pytest.mark.parametrize("task", catalogue.names("tasks"))
@named(laws.TASK_LAWS)
def test_task(law, task):
    law(catalogue.part("tasks", task)())


@named(laws.STEP_LAWS)
def test_step(law):
    law()


@named(laws.RUN_LAWS)
def test_run(law, tmp_path):
    law(tmp_path)
