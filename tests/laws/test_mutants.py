"""Every planted bug breaks the law that it names, and every law has a planted bug."""

import pytest

from seqlab.laws.registry import (
    ANSWER_LAWS,
    ANY_MODEL_LAWS,
    ANY_TASK_LAWS,
    CARRY_LAWS,
    CLASSIFIER_TASK_LAWS,
    CORRUPTING_TASK_LAWS,
    GENERATOR_LAWS,
    GENERATOR_TASK_LAWS,
    LANGUAGE_MODEL_LAWS,
    REGRESSOR_TASK_LAWS,
    RUN_LAWS,
    SOURCE_TASK_LAWS,
    STEP_LAWS,
    TAGGER_TASK_LAWS,
)
from tests.mutants import MUTANTS, Mutant, planted

KINDS = {
    "model": ANY_MODEL_LAWS + ANSWER_LAWS + GENERATOR_LAWS + LANGUAGE_MODEL_LAWS + CARRY_LAWS,
    "task": ANY_TASK_LAWS
    + GENERATOR_TASK_LAWS
    + SOURCE_TASK_LAWS
    + CLASSIFIER_TASK_LAWS
    + CORRUPTING_TASK_LAWS
    + TAGGER_TASK_LAWS
    + REGRESSOR_TASK_LAWS,
    "step": STEP_LAWS,
    "run": RUN_LAWS,
}


def test_every_law_has_a_mutant():
    named = {mutant.law for mutant in MUTANTS}
    assert {law.__name__ for group in KINDS.values() for law in group} == named


def test_without_a_bug_nothing_is_caught():
    """`planted` imports the unchanged package, so a mutant is caught only because of its bug."""
    harmless = Mutant("none", "search.processors", "NEVER = -1e9", "NEVER = -1.0e9", "")
    with planted(harmless) as package:
        subject = package.make_subject(package.catalogue.module("models", "transformer_lm").TINY)
        package.step_agrees_with_features(subject)
        package.greedy_is_a_beam_of_one(subject)
        package.targets_are_the_next_tokens(package.catalogue.part_class("tasks", "translation")())


def test_a_certificate_names_what_is_broken():
    mutant = next(mutant for mutant in MUTANTS if mutant.bug == "causal mask dropped")
    with planted(mutant) as mutated:
        model = mutated.catalogue.module("models", "transformer_lm").TINY
        mutated.catalogue.part_class("tasks", "language_modeling")()
        result = {name: (holds, more) for name, holds, more in mutated.certificate(model)}
    assert result["padding-inert"] == (True, "")
    assert not result["causal"][0]
    assert result["causal"][1].startswith("logits before position 1 after changing later ids")
    assert result["rows independent"][0]
    assert "state carried" not in result


def test_a_certificate_looks_as_far_as_the_model():
    """Catches a bug of wide convolutions, which does not show in short rows."""
    mutant = Mutant(
        "a wide convolution forgets",
        "layers.convolution",
        "slot = (t - j * self.dilation) % self.reach",
        "slot = (t - j * (self.dilation if self.dilation < 8 else 1)) % self.reach",
        "step_agrees_with_features",
    )
    with planted(mutant) as mutated:
        model = mutated.catalogue.module("models", "tcn_lm").TINY.clone(layers=4, dim=4, kernel=3)
        mutated.catalogue.part_class("tasks", "language_modeling")()
        result = {name: holds for name, holds, _ in mutated.certificate(model)}
    assert [name for name, holds in result.items() if not holds] == [
        "step against forward",
        "reorder follows parents",
    ]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.replace(" ", "-"))
def test_mutant_is_caught(mutant, tmp_path):
    kind = next(kind for kind, group in KINDS.items() if mutant.law in {law.__name__ for law in group})
    with planted(mutant) as mutated:
        law, catalogue = getattr(mutated, mutant.law), mutated.catalogue
        if kind == "model":
            kind, _, name = mutant.part.rpartition("/")
            model, *_ = mutated.models_with(catalogue.module(kind or "models", name).TINY)
            argument = [mutated.make_subject(model)]
        elif kind == "task":
            argument = [catalogue.part_class("tasks", mutant.part)()]
        else:
            argument = [tmp_path] if kind == "run" else []
        with pytest.raises(mutated.LawBroken):
            law(*argument)
