"""Initialization of a run from parts of other runs."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from seqlab import catalogue
from seqlab.config import Optimizer
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import checkpoint, manifest
from seqlab.runs.initialize import load_parts
from seqlab.system.errors import SeqlabError
from seqlab.training.train import train
from tests.command import save_untrained


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of a Transformer with two encoder layers."""
    experiment = tiny_experiment()
    experiment = dataclasses.replace(experiment, model=experiment.model.clone(encoder_layers=2))
    folder = tmp_path_factory.mktemp("runs") / "pre"
    save_untrained(experiment, dict.fromkeys(("source", "target"), tiny_tokenizer()), folder, 7)
    return folder


def leaves_of(run: Path, step: int | None = None) -> dict[str, np.ndarray]:
    step = manifest.choose_step(run) if step is None else step
    return flatten_dict(checkpoint.restore(run, step)["params"], sep="/")


def test_parts_are_taken_by_path(run):
    stored = leaves_of(run)
    (path, kernel), *_ = [(path, leaf) for path, leaf in stored.items() if path.startswith("params/encoder/")]
    rest = path.removeprefix("params/encoder/").split("/")
    nested = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    for name in reversed(rest):
        nested = {name: nested}
    shapes = {"params": {"reader": nested, "new": {"bias": jax.ShapeDtypeStruct((3,), np.float32)}}}
    lines = []
    taken = load_parts((("reader", str(run), "encoder"),), Path(), shapes, lines.append)
    assert taken.keys() == {f"params/reader/{'/'.join(rest)}"}
    np.testing.assert_array_equal(next(iter(taken.values())), kernel)
    left = sum(path.startswith("params/encoder/") for path in stored) - 1
    assert lines == [f"reader: 1 arrays from encoder of {run}, {left} unused", "new: 1 arrays, new/bias"]
    lines.clear()
    load_parts((("reader", str(run), "encoder"),), Path(), shapes, lines.append, ["params/new/bias"])
    assert lines == [f"reader: 1 arrays from encoder of {run}, {left} unused"]
    assert (
        load_parts((("", str(run), ""),), Path(), checkpoint.restore(run, 1)["params"], print).keys() == stored.keys()
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("encoder", "RUN", "encodr"), "no parameter of the part 'encodr' of .* fits the part 'encoder' of"),
        (("adapter", "RUN", "encoder"), "no parameter of the part 'encoder' of .* fits the part 'adapter' of"),
        (("enc", "RUN", "enc"), "no parameter of the part 'enc' of .* fits the part 'enc' of"),
        (("encoder", "nowhere", "encoder"), "nowhere"),
    ],
)
def test_parts_that_are_not_there(run, parts, message):
    shapes = checkpoint.restore(run, 1)["params"]
    with pytest.raises(SeqlabError, match=message):
        load_parts((tuple(part.replace("RUN", str(run)) for part in parts),), Path(), shapes, print)


def test_another_shape_is_refused(run):
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*x.shape, 2), x.dtype), checkpoint.restore(run, 1)["params"]
    )
    with pytest.raises(SeqlabError, match=r"initialize: encoder/.* is \(.*\) in .*, but \(.*, 2\) here"):
        load_parts((("encoder", str(run), "encoder"),), Path(), shapes, print)


@pytest.mark.parametrize("name", ["jit", "pmap"])
def test_training_starts_from_a_part_and_freezes_it(run, tmp_path, name):
    """The frozen encoder of the new run stays bit-identical to the old run; the other parameters are new."""
    experiment = tiny_experiment()
    experiment = dataclasses.replace(
        experiment,
        model=experiment.model.clone(tie="none", encoder_layers=2),
        steps=2,
        optimizer=Optimizer(trainable="^params/(?!encoder/)", average=0.5),
        initialize=(("encoder", str(run), "encoder"),),
        parallel=dataclasses.replace(experiment.parallel, name=name),
    )
    train(experiment, tmp_path / "new", tmp_path / "data", say=lambda line: None)
    assert catalogue.load_experiment(tmp_path / "new" / "experiment.json").initialize == experiment.initialize
    old, new = leaves_of(run), leaves_of(tmp_path / "new", 2)
    encoder = [path for path in new if path.startswith("params/encoder/")]
    assert encoder
    assert all(new[path].tobytes() == old[path].tobytes() for path in encoder)
    shared = [path for path in new if path in old and new[path].shape == old[path].shape and path not in encoder]
    assert not any(np.array_equal(new[path], old[path]) for path in shared if new[path].any())
