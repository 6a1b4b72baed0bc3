"""Every law, on every part found. Adding a part changes nothing here."""

import functools

import pytest

from seqlab import catalogue, laws

# A model's VARIANTS have other values in fields that TINY leaves at their defaults: the laws that hinge on them.
VARIANT_LAWS = {
    laws.pads_are_inert,
    laws.future_is_unseen,
    laws.step_agrees_with_features,
    laws.gradients_reach_every_parameter,
    laws.reorder_follows_parents,
    laws.past_matters,
    laws.empty_rows_are_finite,
    laws.segments_are_apart,
    laws.carry_continues_the_stream,
}


def parts(kind):
    for name in catalogue.names(kind):
        module = catalogue.module(kind, name)
        yield name, 0, module.TINY if kind == "models" else module.TASK()
        for index, variant in enumerate(getattr(module, "VARIANTS", ()), 1):
            yield name, index, variant


@functools.cache
def subject(name, index):
    return laws.make_subject(next(model for *key, model in parts("models") if key == [name, index]))


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
        for law in laws.model_laws(model)
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
        for law in laws.task_laws(task)
    ],
)
def test_task(law, task):
    law(task)


@pytest.mark.parametrize("law", laws.STEP_LAWS)
def test_step(law):
    law()


@pytest.mark.parametrize("law", laws.RUN_LAWS)
def test_run(law, tmp_path):
    law(tmp_path)
