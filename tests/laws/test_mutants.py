"""Every planted bug breaks the law it names; every law has one."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from mutants import MUTANTS, planted

from seqlab import laws

KINDS = {"model": laws.MODEL_LAWS, "task": laws.TASK_LAWS, "step": laws.STEP_LAWS, "run": laws.RUN_LAWS}


def test_every_law_has_a_mutant():
    named = {mutant.law for mutant in MUTANTS}
    assert {law.__name__ for group in KINDS.values() for law in group} == named


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.replace(" ", "-"))
def test_mutant_is_caught(mutant, tmp_path):
    kind = next(kind for kind, group in KINDS.items() if mutant.law in {law.__name__ for law in group})
    with planted(mutant) as mutated:
        law, catalogue = getattr(mutated, mutant.law), mutated.catalogue
        if kind == "model":
            argument = [mutated.make_subject(catalogue.module("models", mutant.part).TINY)]
        elif kind == "task":
            argument = [catalogue.part("tasks", mutant.part)()]
        else:
            argument = [tmp_path] if kind == "run" else []
        with pytest.raises(mutated.LawBroken):
            law(*argument)
