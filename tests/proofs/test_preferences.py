"""Direct preference optimization with a toy generator: a custom batch struct, and the initial policy as reference."""

import json
import math

import numpy as np
import pytest
from seqlab_parts.tasks.preferences import Preferences

from seqlab import catalogue
from seqlab.config import Optimizer, Parallel
from seqlab.datasets.local_files import LocalFiles
from seqlab.laws.training import tiny_experiment
from seqlab.runs import loading
from seqlab.tasks.translation import Translation
from seqlab.training.train import train
from tests.proofs.runs import check_devices, check_resume, leaves_of, losses_of, quiet, small

MODEL = catalogue.without_sizes(tiny_experiment().model.clone(dropout=0.0))


def pairs(home, **columns):
    files = (str(home / f"{split}.jsonl") for split in ("train", "validation", "test"))
    return LocalFiles(*files, source="source", target="target", **columns)


def preferring(home, **changes):
    data = pairs(home, further_columns=(("rejected", "rejected"),))
    return small(MODEL, Preferences(), data, **{"references": (("policy", "../policy"),)} | changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a policy, and a run that is initialized from it and has it as its reference."""
    home = tmp_path_factory.mktemp("preferences")
    for split, count in (("train", 60), ("validation", 8), ("test", 8)):
        rows = [{"source": f"say {i}", "target": f"yes {i}", "rejected": f"no {i % 7}"} for i in range(count)]
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(small(MODEL, Translation(), pairs(home)), home / "policy", home / "data", say=quiet)
    train(preferring(home), home / "run", home / "data", init_from=home / "policy", say=quiet)
    return home


def test_the_first_loss_is_that_of_a_coin(home):
    """The policy equals its reference at first, so the loss is log 2."""
    assert losses_of(home / "run")[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses_of(home / "run")[-1] < math.log(2) - 0.01


def test_it_resumes_and_is_the_same_on_devices(home):
    check_resume(preferring(home), home / "run", home / "data", init_from=home / "policy")
    check_devices(preferring(home), home / "run", home / "data")


def test_the_reference_is_unchanged_bit_for_bit(home):
    """The reference does not change, although the policy that was initialized from the same file does."""
    reference = loading.load(home / "policy")
    before = leaves_of(home / "policy")
    train(preferring(home), home / "again", home / "data", init_from=home / "policy", say=quiet)
    after = leaves_of(home / "policy")
    assert all(np.array_equal(before[path], after[path]) for path in before)
    assert any(not np.array_equal(before[path], leaves_of(home / "again")[path]) for path in before)
    assert reference.step == 8


@pytest.mark.parametrize("name", ["jit", "pmap"])
def test_frozen_parameters_and_references_stay(home, tmp_path, name):
    """Only the decoder is trained; the other parameters remain bitwise equal to the reference run."""
    changes = {"optimizer": Optimizer(trainable="params/decoder/"), "parallel": Parallel(name)}
    changes["references"] = (("policy", str(home / "policy")),)
    train(preferring(home, **changes), tmp_path / "run", home / "data", init_from=home / "policy", say=quiet)
    before, after = leaves_of(home / "policy"), leaves_of(tmp_path / "run")
    moved = {path for path in before if not np.array_equal(before[path].view(np.uint32), after[path].view(np.uint32))}
    assert moved
    assert all(path.startswith("params/decoder/") for path in moved)


def test_a_run_of_preferences_decodes(home):
    """Decoding does not need the reference."""
    assert len(loading.load(home / "run").translate(["say 3", "say 4"])) == 2
