"""Sharding of parameters: layers declare all axes, axes divide dimensions, and a sharded model computes the same."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from seqlab import catalogue
from seqlab.distributed.devices import fill_rows
from seqlab.distributed.sharding import SMALLEST, axes_at, explain, name_of, spec_of, specs
from seqlab.laws.equality import require_close
from seqlab.layers.axes import Axes
from seqlab.readers.words import Words
from seqlab.runs.parameters import axes_of, init_model_parameters
from seqlab.types import Batch, Context
from tests.subjects import subject

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


@functools.cache
def trees():
    """Returns shapes and axes of the parameters of every model in a tiny size, and of every config at full size."""
    result = {}
    for name in catalogue.names("models"):
        module = catalogue.module("models", name)
        for i, model in enumerate((module.TINY, *getattr(module, "VARIANTS", ()))):
            result[f"{name} {i}"] = jax.eval_shape(functools.partial(init_model_parameters, model, 0)), axes_of(model)
    for config in CONFIGS:
        experiment = catalogue.load_config(config)
        model = catalogue.with_expected_sizes(experiment).model
        result[config.stem] = jax.eval_shape(functools.partial(init_model_parameters, model, 0)), axes_of(model)
    return result


def leaves(tree):
    return [(name_of(path), x) for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]]


def test_every_parameter_declares_its_axes():
    for tree, axes in trees().values():
        for name, x in leaves(tree):
            declared = axes_at(name, axes)
            assert declared is not None, f"{name}: its layer declares no axes"
            assert len(declared.names) == len(x.shape), f"{name} has {len(x.shape)} axes, and declares {declared}"
        assert axes.keys() == {name.removeprefix("params/") for name, _ in leaves(tree)}


def test_a_parameter_without_axes_stays_whole():
    axes = {"inner/kernel": Axes(("inputs", "hidden"))}
    assert spec_of("params/mystery/kernel", (512, 512), axes, 2, 2) == PartitionSpec()
    assert spec_of("params/inner/kernel", (2, 512, 512), axes, 2, 2) == PartitionSpec()


@pytest.mark.parametrize(("fsdp", "tensor"), [(1, 1), (2, 2), (8, 1), (1, 3), (4, 64)])
def test_axes_divide_what_lies_on_them(fsdp, tensor):
    sizes = {"fsdp": fsdp, "tensor": tensor}
    for tree, declared in trees().values():
        tree_specs = jax.tree.leaves(specs(tree, declared, fsdp, tensor))
        for (name, x), spec in zip(leaves(tree), tree_specs, strict=True):
            axes = [(axis, n) for axis, n in zip(spec, x.shape, strict=False) if axis]
            assert all(sizes[axis] > 1 and n % sizes[axis] == 0 for axis, n in axes), (name, x.shape, spec)
            assert len({axis for axis, _ in axes}) == len(axes)
            assert "fsdp" not in spec or math.prod(x.shape) >= SMALLEST


def test_a_large_model_is_split_nearly_evenly():
    for name, least in (
        ("wmt14_transformer_base", 0.99),
        ("multi30k_conv_seq2seq", 0.99),
        ("multi30k_bahdanau", 0.7),
    ):
        params, axes = trees()[name]
        split = sum(
            math.prod(x.shape)
            for (_, x), spec in zip(leaves(params), jax.tree.leaves(specs(params, axes, 2, 1)), strict=True)
            if "fsdp" in spec
        )
        assert split > least * sum(math.prod(x.shape) for _, x in leaves(params)), name


def test_what_the_optimizer_keeps_lies_as_its_parameter_does():
    params, axes = trees()["wmt14_transformer_base"]
    expected = jax.tree.leaves(specs(params, axes, 2, 2))
    assert any(spec != PartitionSpec() for spec in expected)
    state = jax.eval_shape(optax.adam(lambda step: 0.1).init, params)
    state_tree = {"optimizer": state, "average": params, "step": jax.ShapeDtypeStruct((), jnp.int32)}
    result = specs(state_tree, axes, 2, 2)
    for moment in (result["optimizer"][0].mu, result["optimizer"][0].nu, result["average"]):
        assert jax.tree.leaves(moment) == expected
    assert result["optimizer"][0].count == result["step"] == PartitionSpec()


@pytest.mark.parametrize(
    ("config", "name", "tensor", "expected"),
    [
        ("wmt14_transformer_base", "decoder/stack_3/self_attention/key/kernel", 4, ("fsdp", "tensor", None)),
        ("wmt14_transformer_base", "decoder/stack_3/cross_attention/out/kernel", 4, ("tensor", None, "fsdp")),
        ("wmt14_transformer_base", "encoder/stack_0/feed_forward/outer/kernel", 4, ("tensor", "fsdp")),
        ("wmt14_transformer_base", "words/table", 3, (None, "fsdp")),
        ("wmt14_transformer_base", "words/table", 1, (None, "fsdp")),
        ("multi30k_sutskever", "encoder/stack_0/input/kernel", 4, ("fsdp", None)),
        ("multi30k_sutskever", "encoder/stack_0/recurrent", 4, ()),
        ("wmt14_transformer_base", "encoder/stack_0/self_norm/scale", 4, ()),
        ("multi30k_conv_seq2seq", "encoder_0/convolution/gain", 4, ()),
    ],
)
def test_what_is_split_and_how(config, name, tensor, expected):
    params, axes = trees()[config]
    shape = dict(leaves(params))[f"params/{name}"].shape
    assert spec_of(f"mu/params/{name}", shape, axes, 2, tensor) == PartitionSpec(*expected)


def test_the_table_tells_sizes():
    tree = {"params": {"inner": {"kernel": jax.ShapeDtypeStruct((512, 2048), jnp.float32)}, "x": jnp.ones(())}}
    head, kernel, scale, total = explain(tree, {"inner/kernel": Axes(("inputs", "hidden"))}, 2, 4)
    assert head.split() == ["parameter", "axes", "shape", "sharded", "on", "MiB", "MiB", "per", "device"]
    assert kernel.split() == [
        "params/inner/kernel", "inputs", "hidden", "512x2048", "fsdp", "x", "tensor", "4.000", "0.500",
    ]  # fmt: skip
    assert scale.split() == ["params/x", "not", "declared", "-", "whole", "0.000", "0.000"]
    assert total.split() == ["total", "4.000", "0.500"]


WIDE = {
    "transformer": {"dim": 64, "hidden": 128, "vocabulary": 70, "reader": Words(90), "encoder_layers": 1},
    "recurrent_lm": {"dim": 64, "vocabulary": 70, "layers": 1},
    "conv_seq2seq": {"dim": 64, "vocabulary": 70, "reader": Words(90), "encoder_layers": 1},
    "tcn_lm": {"dim": 64, "vocabulary": 70},
}


@pytest.mark.parametrize("name", WIDE)
def test_a_split_model_computes_what_a_whole_one_does(name):
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    s = subject(name, **WIDE[name])
    task = catalogue.part_class("tasks", "translation" if s.inputs is not None else "language_modeling")()
    batch = fill_rows(Batch(s.inputs, s.prefix, s.targets, s.weights), 4)

    def loss(params, batch):
        return task.loss(s.model, params, batch, Context())[0]

    alone = jax.jit(jax.value_and_grad(loss))(s.params, batch)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(s.params, axes_of(s.model), 2, 2))
    assert {axis for x in jax.tree.leaves(shardings) for axis in x.spec if axis} >= (
        {"fsdp", "tensor"} if name != "recurrent_lm" else {"fsdp"}
    )
    placed = jax.device_put(s.params, shardings)
    rows = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    split = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))(placed, rows)
    for (path, result), expected in zip(leaves(split), jax.tree.leaves(alone), strict=True):
        require_close(result, expected, f"{name}: {path}")
