"""Direct preference optimization with a toy generator: a custom batch struct, and the initial policy as reference."""

import json
import math

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from seqlab_parts.tasks.preferences import Preferences

from seqlab import catalogue
from seqlab.config import Optimizer, Parallel
from seqlab.datasets.local_files import LocalFiles
from seqlab.laws.training import tiny_experiment
from seqlab.runs import loading
from seqlab.runs.references import place_references
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


@pytest.mark.parametrize("name", ["jit", "pmap"])
def test_the_reference_is_unchanged_bit_for_bit(home, tmp_path, name, monkeypatch):
    """The reference on the devices stays the same, although the policy that starts from the same run changes."""
    placed = {}

    def place(references, function):
        placed.update(place_references(references, function))
        return placed

    monkeypatch.setattr("seqlab.training.train.place_references", place)
    changes = {"parallel": Parallel(name), "references": (("policy", str(home / "policy")),)}
    train(preferring(home, **changes), tmp_path / "run", home / "data", init_from=home / "policy", say=quiet)
    before, after = leaves_of(home / "policy"), flatten_dict(placed["policy"].params, sep="/")
    for path, leaf in before.items():
        copies = np.asarray(after[path]).reshape(-1, *leaf.shape)  # pmap has one for each device
        assert all(np.array_equal(copy.view(np.uint32), leaf.view(np.uint32)) for copy in copies)
    trained = leaves_of(tmp_path / "run")
    assert any(not np.array_equal(before[path], trained[path]) for path in before)


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
