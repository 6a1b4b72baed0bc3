"""Checks all laws on all parts. Adding a part needs no change here."""

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
from seqlab.laws.models import (
    dropout_acts_only_in_training,
    empty_rows_are_finite,
    four_examples_can_be_memorized,
    gradients_reach_every_parameter,
    pads_are_inert,
)
from seqlab.laws.registry import RUN_LAWS, STEP_LAWS, model_laws, task_laws
from seqlab.laws.subject import make_subject, models_with
from seqlab.types import Tagger

# Laws that depend on the fields that VARIANTS change.
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
        yield name, 0, module.TASK() if kind == "tasks" else module.TINY
        for index, variant in enumerate(getattr(module, "VARIANTS", ()), 1):
            yield name, index, variant


def models():
    """Yields all models, and small models with each encoder and each reader."""
    for kind in ("models", "encoders", "readers"):
        for name, index, part in parts(kind):
            for model in models_with(part):
                head = "" if kind == "models" else f" {type(model).__name__}"
                yield f"{kind[:-1]} {name}{head}", index, model


MODELS = {(name, index): model for name, index, model in models()}


# Not checked for taggers on encoders: the values of an encoder need not depend on all its parameters, and one label
# may fit all positions.
SUMMARY_LAWS = {gradients_reach_every_parameter, four_examples_can_be_memorized, dropout_acts_only_in_training}


def laws_of(name, model):
    left_out = SUMMARY_LAWS if name.startswith("encoder") and isinstance(model, Tagger) else ()
    return [law for law in model_laws(model) if law not in left_out]


@functools.cache
def subject(name, index):
    return make_subject(MODELS[name, index])


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
        for (name, index), model in MODELS.items()
        for law in laws_of(name, model)
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
