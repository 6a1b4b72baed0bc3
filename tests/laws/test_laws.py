"""Every law, on every part found. Adding a part changes nothing here."""

import functools

import pytest

from seqlab import catalogue
from seqlab.laws.generators import (
    carry_continues_the_stream,
    future_is_unseen,
    past_matters,
    reorder_follows_parents,
    segments_are_apart,
    step_agrees_with_features,
)
from seqlab.laws.models import empty_rows_are_finite, gradients_reach_every_parameter, pads_are_inert
from seqlab.laws.registry import RUN_LAWS, STEP_LAWS, model_laws, task_laws
from seqlab.laws.subject import make_subject

# A model's VARIANTS have other values in fields that TINY leaves at their defaults: the laws that hinge on them.
VARIANT_LAWS = {
    pads_are_inert,
    future_is_unseen,
    step_agrees_with_features,
    gradients_reach_every_parameter,
    reorder_follows_parents,
    past_matters,
    empty_rows_are_finite,
    segments_are_apart,
    carry_continues_the_stream,
}


def parts(kind):
    for name in catalogue.names(kind):
        module = catalogue.module(kind, name)
        yield name, 0, module.TINY if kind == "models" else module.TASK()
        for index, variant in enumerate(getattr(module, "VARIANTS", ()), 1):
            yield name, index, variant


@functools.cache
def subject(name, index):
    return make_subject(next(model for *key, model in parts("models") if key == [name, index]))


@pytest.mark.parametrize(
    ("law", "name", "index"),
    [
        pytest.param(
            law,
            name,
            index,
            id=f"{law.__name__}-{name}-{index}",
            marks=[pytest.mark.sample(2, of=law.__name__)] if index else [],
        )
        for name, index, model in parts("models")
        for law in model_laws(model)
        if index == 0 or law in VARIANT_LAWS
    ],
)
def test_model(law, name, index):
    law(subject(name, index))


@pytest.mark.parametrize(
    ("law", "task"),
    [
        pytest.param(law, task, id=f"{law.__name__}-{name}-{index}")
        for name, index, task in parts("tasks")
        for law in task_laws(task)
    ],
)
def test_task(law, task):
    law(task)


@pytest.mark.parametrize("law", STEP_LAWS)
def test_step(law):
    law()


@pytest.mark.parametrize("law", RUN_LAWS)
def test_run(law, tmp_path):
    law(tmp_path)
