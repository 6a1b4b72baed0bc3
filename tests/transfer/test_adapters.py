"""Adapters in the layers of Transformers: values at the start, decoding, and training from a run without adapters."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from seqlab import catalogue
from seqlab.config import Optimizer
from seqlab.laws.generators import step_agrees_with_features
from seqlab.laws.subject import make_subject
from seqlab.models.classifier_head import ClassifierHead
from seqlab.runs.parameters import init_model_parameters
from seqlab.system.errors import SeqlabError
from seqlab.training.train import train
from tests.proofs.runs import leaves_of
from tests.transfer.subjects import OLD, bert, classifying, moods, pretrained


def tiny(kind, name, **changes):
    """Returns the TINY of a model, or a classifier with the TINY of an encoder, with some fields changed."""
    part = catalogue.module(kind, name).TINY.clone(dropout=0.0, **changes)
    return part if kind == "models" else ClassifierHead(part, classes=3, dropout=0.0)


@pytest.mark.parametrize(
    ("kind", "name"), [("models", "transformer"), ("models", "transformer_lm"), ("encoders", "bert")]
)
def test_values_at_the_start(kind, name):
    """Adapters do not change the initial values of other parameters, and hardly change the outputs."""
    plain, adapted = make_subject(tiny(kind, name)), make_subject(tiny(kind, name, adapter=3))
    leaves, adapted_leaves = (flatten_dict(s.params["params"], sep="/") for s in (plain, adapted))
    added = adapted_leaves.keys() - leaves.keys()
    assert all("_adapter/bottleneck/" in path for path in added)
    assert leaves.keys() <= adapted_leaves.keys()
    assert all(np.array_equal(leaf, adapted_leaves[path]) for path, leaf in leaves.items())
    expected = np.asarray(plain.forward(plain.params, plain.inputs, plain.prefix))
    result = np.asarray(adapted.forward(adapted.params, adapted.inputs, adapted.prefix))
    assert 0 < np.abs(result - expected).max() < 0.01 * np.abs(expected).max()
    zeros = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if "adapter" in jax.tree_util.keystr(path) else x, adapted.params
    )
    np.testing.assert_array_equal(adapted.forward(zeros, adapted.inputs, adapted.prefix), expected)


@pytest.mark.parametrize("name", ["transformer", "transformer_lm"])
def test_steps_have_adapters(name):
    step_agrees_with_features(make_subject(tiny("models", name, adapter=3)))


def test_only_adapters_norms_and_the_head_are_trained(tmp_path):
    stored = pretrained(tmp_path / "pre", OLD)
    (tmp_path / "old.model").write_bytes(OLD.model)
    experiment = dataclasses.replace(
        classifying(),
        model=ClassifierHead(bert(adapter=3)),
        data=moods(tmp_path),
        steps=2,
        initialize=(("encoder", str(tmp_path / "pre"), "encoder"),),
        optimizer=Optimizer(trainable="adapter|norm|^params/output"),
    )
    lines: list[str] = []
    train(experiment, tmp_path / "run", tmp_path / "data", tokenizer=tmp_path / "old.model", say=lines.append)
    model = catalogue.load_experiment(tmp_path / "run" / "experiment.json").model
    first = flatten_dict(init_model_parameters(model, experiment.seed), sep="/")
    first |= {path: leaf for path, leaf in stored.items() if path.startswith("params/encoder/")}
    for path, leaf in leaves_of(tmp_path / "run").items():
        trained = "adapter" in path or "norm" in path or path.startswith("params/output")
        assert (leaf.tobytes() == np.asarray(first[path]).tobytes()) != trained, path
    assert sum("adapter" in path for path in first) == 2 * 4  # two dense layers in each of two branches
    assert any(line.startswith("new: 10 arrays, ") for line in lines)  # those of adapters and of the head


def test_a_negative_width_is_refused():
    with pytest.raises(SeqlabError, match="adapter must be at least 0, not -1"):
        make_subject(tiny("models", "transformer_lm", adapter=-1))
