"""The cost of a model: counted products, their longest chain, and the growth of both with the length."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.data.batches import blank_batch
from seqlab.evaluation.cost import costs, count, parameters
from seqlab.laws.training import tiny_experiment
from seqlab.layers.convolution import max_moves
from seqlab.layers.nesting import readers_of, with_fields
from seqlab.runs.parameters import init_model_parameters
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.types import Generator
from tests.command import call

ROOT = Path(__file__).parents[2]
X, W = jnp.ones((2, 3)), jnp.ones((3, 3))


def twice(x):
    return x @ W @ W


def side_by_side(x):
    return x @ W + jnp.tanh(x) @ W


def chain(x):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ W), None), x, length=5)[0]


def independent(x):
    """Independent products in a loop."""
    return jax.lax.scan(lambda total, row: (total + row @ W, None), jnp.zeros(3), jnp.concatenate([x, x]))[0]


def either(x):
    """The condition depends on no product, and the more expensive branch counts."""
    return jax.lax.cond(x.sum() > 0, twice, lambda x: x, x)


def chosen(x):
    """The condition depends on a product."""
    return jax.lax.cond((x @ W @ W).sum() > 0, lambda x: x @ W, lambda x: x, x)


@pytest.mark.parametrize(
    ("function", "products", "deep"),
    [
        (twice, 2, 2),
        (side_by_side, 2, 1),
        (chain, 5, 5),
        (independent, 2, 1),
        (either, 2, 2),
        (chosen, 3, 3),
        (jnp.tanh, 0, 0),
    ],
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"])
def test_count(function, products, deep, wrap):
    operations, depths = count(jax.make_jaxpr(wrap(function))(X))
    assert (operations, max(depths)) == (products * 2 * 2 * 3 * 3, deep)


def test_as_the_compiler_counts_without_loops():
    gradient = jax.grad(lambda w, x: jnp.tanh(x @ w @ w).sum())
    operations, _ = count(jax.make_jaxpr(gradient)(W, X))
    compiled = jax.jit(gradient).lower(W, X).compile().cost_analysis()
    assert operations <= compiled["flops"] <= operations + 100


def test_a_loop_without_a_length():
    with pytest.raises(ValueError, match=r"no countable cost: use jax\.lax\.scan"):
        count(jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, twice, x))(X))


GENERATORS = [n for n in catalogue.names("models") if isinstance(catalogue.module("models", n).TINY, Generator)]
IN_A_ROW = {"recurrent_lm", "sutskever", "bahdanau", "hierarchical_seq2seq"}


@pytest.mark.parametrize("name", GENERATORS)
def test_what_waits_grows_with_recurrent_layers_alone(name):
    model = catalogue.module("models", name).TINY
    tiny_experiment().task if readers_of(model) else LanguageModeling()

    def deep(length):
        batch = jax.tree.map(jnp.asarray, blank_batch(model, 1, length))
        params = init_model_parameters(model, 0)
        call = functools.partial(
            model.apply, inputs=batch.inputs, prefix=batch.prefix, train=False, method="features"
        )
        return max(count(jax.make_jaxpr(call)(params))[1])

    result = np.diff([deep(length) for length in (4, 8, 12)])
    assert result[0] == result[1]
    assert (result[0] >= 4) == (name in IN_A_ROW)
    paths = [model.paths(length)["target"] for length in (4, 8)]
    assert (paths == [3, 7]) == (name in IN_A_ROW)


@pytest.mark.parametrize("name", ["tcn_lm", "conv_seq2seq"])
def test_the_way_through_convolutions(name):
    module = catalogue.module("models", name)
    for model in (module.TINY, *module.VARIANTS, module.TINY.clone(kernel=5, cycle=3)):
        for length in range(1, model.receptive_field + 3):
            assert (model.paths(length)["target"] is None) == (length > model.receptive_field)
        assert [model.paths(length)["target"] for length in (1, 2)] == [0, 1]
        assert model.paths(model.receptive_field)["target"] > 1


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("layer_dilations", [(1,), (1, 2), (2, 3), (1, 1, 2), (1, 2, 4, 1)])
def test_most_moves(kernel, layer_dilations):
    """The number of moves, compared with all combinations of steps through the convolutions."""
    far = range(1 + (kernel - 1) * sum(layer_dilations))
    fewest = dict.fromkeys(far, np.inf)
    for jumps in itertools.product(range(kernel), repeat=len(layer_dilations)):
        distance = sum(jump * dilation for jump, dilation in zip(jumps, layer_dilations, strict=True))
        fewest[distance] = min(fewest[distance], sum(jump > 0 for jump in jumps))
    for distance in far:
        expected = max(fewest[shorter] for shorter in range(distance + 1))
        assert max_moves(layer_dilations, kernel, distance) == (None if expected == np.inf else expected)
    assert max_moves(layer_dilations, kernel, far[-1] + 1) is None


def test_costs():
    experiment = tiny_experiment()
    experiment = dataclasses.replace(experiment, model=with_fields(experiment.model, vocabulary=40))
    result = costs(experiment, 5, rows=2)
    assert result.decoding is not None
    # Parameters and Adam's two moments are arguments, and their new values use the same memory.
    assert result.training.memory > 3 * 4 * parameters(experiment)
    assert result.training.operations > result.decoding.operations > 0
    assert 0 < result.decoding.seconds < 1
    assert result.paths == {"source": 1, "target": 1}


def test_command(capsys, tmp_path):
    (tmp_path / "config.py").write_text(
        "from seqlab.encoders.recurrent import RecurrentEncoder\n"
        "from seqlab.readers.numbers import Numbers\n"
        "from seqlab.models.regressor_head import RegressorHead\n"
        "from seqlab.config import Experiment\n"
        "from seqlab.datasets.adding_problem import AddingProblem\n"
        "from seqlab.tasks.regression import Regression\n"
        "model = RegressorHead(RecurrentEncoder(Numbers(), dim=8))\n"
        "experiment = Experiment(model, Regression(features=2), AddingProblem(9))\n"
    )
    assert call(tmp_path, "cost", "config.py", "--lengths", "4", "9") == 0
    told = capsys.readouterr().out
    assert "source 3" in told
    assert "source 8" in told
    assert call(tmp_path, "cost", "config.py", "--lengths", "4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["costs"][0]["decoding"] is None
    assert call(tmp_path, "cost", str(ROOT / "configs" / "copy_memory.py")) == 2
    assert capsys.readouterr().err.endswith("give --model.classes N\n")
    assert call(tmp_path, "cost", "config.py", "--lengths", "1") == 2
    assert capsys.readouterr().err == "seqlab: --lengths must be at least 2, not 1\n"
