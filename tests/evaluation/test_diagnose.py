"""The measurements of `seqlab diagnose`, compared with plain NumPy and planted bugs, and the command."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqlab import catalogue
from seqlab.config import Experiment, Optimizer
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.evaluation.diagnosis.activations import activations, gates, sides_of_layers, statistics
from seqlab.evaluation.diagnosis.gradient_check import WRONG, gradient_check, in_float64
from seqlab.evaluation.diagnosis.gradients import (
    AFTER,
    BEFORE,
    by_place,
    gradients_over_time,
    last_targets,
    norms_of,
    reach,
)
from seqlab.evaluation.diagnosis.rates import WINDOW, range_test, smooth, suggest, usable
from seqlab.evaluation.diagnosis.updates import with_update_ratios
from seqlab.laws.subject import make_subject
from seqlab.layers.recurrent import Recurrent
from seqlab.readers.numbers import Numbers
from seqlab.types import Batch, Context, Loss, Tokens, TrainState
from tests.command import call
from tests.mutants import Mutant, planted
from tests.oracles import layers as oracle

TASKS = {
    "recurrent_lm": "language_modeling",
    "transformer": "translation",
    "classifier_head": "classification",
    "tagger_head": "tagging",
    "regressor_head": "regression",
}
PLACED = {"masked_lm": "masked_tokens", "bidirectional_lm": "bidirectional_modeling"}


def case(name, **fields):
    """An experiment with a tiny model, parameters without zeros, and a ragged batch."""
    task = catalogue.part_class("tasks", {**TASKS, **PLACED}[name])()
    model = catalogue.module("models", name).TINY.clone(**fields)
    s = make_subject(model)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(x + random.normal(size=x.shape, scale=0.2)), s.params)
    batch = jax.tree.map(np.asarray, Batch(s.inputs, s.prefix, s.targets, s.weights))
    return Experiment(model, task, None), params, batch


def loss_of(experiment):
    return functools.partial(experiment.task.loss, experiment.model)


def test_gradients_over_time_of_a_linear_layer():
    """An IRNN with positive values is linear: d h[last] / d x[t] = W U^lag."""
    experiment, params, batch = case("regressor_head", encoder=RecurrentEncoder(Numbers(2), dim=8, cell="irnn"))
    params = jax.tree.map(np.abs, params)
    batch = batch.replace(inputs=batch.inputs.replace(values=np.abs(batch.inputs.values)))
    (result,) = gradients_over_time(loss_of(experiment), params, batch).values()

    stack = params["params"]["encoder"]["stack"]["stack_0"]
    w, u, out = stack["input"]["kernel"], stack["recurrent"], params["params"]["output"]
    norms: dict[int, list[float]] = {}
    for x, mask, target in zip(batch.inputs.values, batch.inputs.mask, batch.targets, strict=True):
        h = np.zeros(len(u))
        for x_t in x[mask]:
            h = x_t @ w + h @ u + stack["bias"]
        error = h @ out["kernel"][:, 0] + out["bias"][0] - target
        for lag in range(mask.sum()):
            gradient = 2 * error * (w @ np.linalg.matrix_power(u, lag) @ out["kernel"][:, 0])
            norms.setdefault(lag, []).append(float(np.linalg.norm(gradient)))
    expected = [np.mean(norms[lag]) for lag in range(len(norms))]
    np.testing.assert_allclose(result.norms, expected, rtol=1e-4)
    assert result.factor == pytest.approx(np.exp(np.polyfit(range(len(norms)), np.log(expected), 1)[0]), rel=1e-3)


@pytest.mark.parametrize("name", ["recurrent_lm", "transformer"])
def test_gradients_over_time_of_a_generator(name):
    """Each id occurs once, so the gradient of a table row belongs to one position."""
    experiment, params, batch = case(name, **({"tie": "none"} if name == "transformer" else {"tie": False}))
    row = np.array([[6, 3, 5, 2, 4, 0]])
    tokens = Tokens(row, row > 0)
    source = None if batch.inputs is None else Tokens(row[:, ::-1] + 2, np.ones_like(row, bool))
    weights = np.float32([[1, 1, 1, 1, 0, 0]])  # the last target is not at the last token
    batch = Batch(source, tokens, np.roll(row, -1), weights)
    result = gradients_over_time(loss_of(experiment), params, batch)
    alone = batch.replace(weights=np.float32([[0, 0, 0, 1, 0, 0]]))
    gradient = jax.jit(jax.grad(lambda *arguments: loss_of(experiment)(*arguments, Context()).sum))(params, alone)
    table = gradient["params"]["words"]["table"] / np.sqrt(experiment.model.dim)
    np.testing.assert_allclose(result["target"].norms, np.linalg.norm(table[row[0, 3::-1]], axis=1), rtol=1e-4)
    assert set(result) == {"target"} | ({"encoder's source"} if name == "transformer" else set())
    if name == "transformer":
        table = gradient["params"]["reader"]["words"]["table"]
        norms = np.linalg.norm(table[source.ids[0]], axis=1)
        np.testing.assert_allclose(result["encoder's source"].norms, norms, rtol=1e-4)


def test_gradients_over_time_stay_in_their_segment():
    experiment, params, _ = case("recurrent_lm")
    ids = np.array([[1, 4, 5, 1, 6, 3, 0]])
    tokens = Tokens(ids, ids > 0, segments=np.array([[1, 1, 1, 2, 2, 2, 0]]))
    batch = Batch(None, tokens, np.roll(ids, -1), np.float32(ids > 0))
    assert len(gradients_over_time(loss_of(experiment), params, batch)["target"].norms) == 3


def test_last_targets():
    weights = np.float32([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    last, batch = last_targets(Batch(None, None, np.zeros((3, 4), int), weights))
    assert last[:2].tolist() == [1, 2]
    assert batch.weights.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_last_targets_by_place():
    """The places of padding are 0. The places of previous tokens start over after those of next tokens."""
    masked = np.float32([[1, 1, 0], [1, 1, 1]])
    last, batch = last_targets(Batch(None, None, masked, masked), np.array([[1, 4, 0], [0, 2, 3]]))
    assert last.tolist() == [4, 3]
    assert batch.weights.tolist() == [[0, 1, 0], [0, 0, 1]]
    both = np.float32([[1, 1, 0, 0, 1, 1]])
    last, batch = last_targets(Batch(None, None, both, both), np.array([[0, 1, 2, 0, 1, 2]]))
    assert last.tolist() == [1]
    assert batch.weights.tolist() == [[0, 1, 0, 0, 0, 0]]


def placed_case(name):
    """A case of a task whose targets have places, with one row of four tokens."""
    experiment, params, _ = case(name)
    row = np.array([[5, 3, 6, 4]])
    inputs, task = Tokens(row, row > 0), experiment.task
    batch = dataclasses.replace(task.blank(experiment.model, 1, 4), inputs=inputs)
    if name == "masked_lm":
        places, weights = np.array([[0, 2, 0]]), np.float32([[1, 1, 0]])
        return experiment, params, batch.replace(places=places, targets=places + 1, weights=weights)
    return experiment, params, batch.replace(weights=np.float32([[1, 1, 1, 0, 0, 1, 1, 1]]))


@pytest.mark.parametrize("name", PLACED)
def test_targets_with_places(name):
    """The last target is at the third of four positions. All positions before it influence it."""
    experiment, params, batch = placed_case(name)
    loss = loss_of(experiment)
    (result,) = gradients_over_time(loss, params, batch, experiment.task.places(batch)).values()
    assert len(result.norms) == 3
    assert (result.norms > 0).all()
    layers = activations(loss, params, batch)
    assert {"encoder.words"} <= layers.keys()
    assert max(gradient_check(in_float64(experiment), params, batch).values()) < WRONG / 10


@pytest.mark.parametrize("places", [1, 4])
def test_sides_of_layers_with_places(places):
    """Layers with a vector for each place are left out, unless there are as many places as positions."""
    experiment, params, batch = placed_case("masked_lm")
    answers = {name: np.zeros((1, places), np.int32) for name in ("places", "targets")}
    batch = batch.replace(**answers, weights=np.ones((1, places), np.float32))
    sides = sides_of_layers(loss_of(experiment), params, batch)
    assert sides["encoder.words"] == "source"
    assert sides["follows_hidden"] == "row"
    assert sides.get("hidden") == (None if places == 1 else "source")


def test_small_norms_are_not_zero():
    x = np.float32([[3, 4], [0, 0], [3e-30, -4e-30]])
    np.testing.assert_allclose(norms_of(jnp.asarray(x)), [5, 0, 5e-30], rtol=1e-6)


def test_by_place():
    result = by_place(np.array([[1.0, 2.0, 9.0], [5.0, 9.0, 9.0]]), np.array([[1, 0, -1], [0, -1, -1]]))
    assert result.tolist() == [3.5, 1.0]


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.5, "vanishing"), (0.9, "it reaches the first position"), (2.0, "exploding")]
)
def test_reach(factor, verdict):
    result = reach(factor ** np.arange(12.0))
    assert result.factor == pytest.approx(factor)
    assert result.left == pytest.approx(factor**11)
    assert result.verdict == verdict
    assert reach(np.append(factor ** np.arange(12.0), 0.0))[1:] == pytest.approx((factor, 0, "vanishing"), abs=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("cell", "reset", "layer_norm"),
    [("lstm", "after", False), ("lstm", "after", True), ("gru", "after", True), ("gru", "before", False)],
)
def test_gates(cell, reset, layer_norm, reverse):
    random = np.random.default_rng(1)
    x, dim = jnp.float32(random.normal(size=(1, 5, 3))), 4
    mask = jnp.ones((1, 5), bool)
    layer = Recurrent(cell, 3, dim, reset=reset, layer_norm=layer_norm)
    params = jax.jit(layer.init)(jax.random.key(0), x, mask)
    params = jax.tree.map(lambda v: v + random.normal(size=v.shape, scale=0.5).astype(np.float32), params)

    def run(layer):
        return gates(layer, x, layer(x, mask, reverse=reverse)[0], reverse=reverse)

    result = jax.jit(functools.partial(layer.apply, method=run))(params)
    p = jax.tree.map(np.asarray, params["params"])
    norms = {name: (p[name]["scale"], p[name]["bias"]) for name in p if name.endswith("norm")}
    weights = p["input"]["kernel"], p["recurrent"], p["bias"], p.get("candidate_bias")
    given = [norms.get(f"{name}_norm") for name in ("input", "recurrent", "cell", "candidate")]
    row = np.asarray(x)[0, ::-1] if reverse else np.asarray(x)[0]
    h = np.concatenate([np.zeros((1, dim)), oracle.recurrent(cell, reset, row, weights, given)])
    kernel = p["recurrent"][:, : 2 * dim] if reset == "before" else p["recurrent"]
    names = {"lstm": "ifgo", "gru": "rz"}[cell]
    for t, x_t in enumerate(row):
        wx = oracle.normal(x_t @ p["input"]["kernel"], norms.get("input_norm")) + p["bias"]
        u = oracle.normal(h[t] @ kernel, norms.get("recurrent_norm"))
        values = oracle.sigmoid(wx[: len(names) * dim] + u[: len(names) * dim]).reshape(len(names), dim)
        for name, value in zip(names, values, strict=True):
            if name != "g":
                np.testing.assert_allclose(result[name][0, 4 - t if reverse else t], value, rtol=1e-4)
    assert set(result) == set(names) - {"g"}


def test_statistics():
    """A unit that is nonzero only at pads is dead. Pads do not count for the other statistics."""
    random = np.random.default_rng(0)
    real = np.array([[1, 1, 0], [1, 0, 0]], bool)
    x = random.normal(size=(2, 3, 5)).astype(np.float32)
    x[real, 1] = 0.0
    x[0, 0, 2] = 0.0
    result = statistics(jnp.asarray(x), jnp.asarray(real), (-0.5, 0.7))
    values = x[real]
    assert result["dead"] == pytest.approx(1 / 5)
    assert result["rms"] == pytest.approx(np.sqrt((values**2).mean()), rel=1e-5)
    assert result["saturated"] == pytest.approx(((values < -0.5) | (values > 0.7)).mean())


@pytest.mark.parametrize(
    ("name", "layer", "path"),
    [("classifier_head", "inner", "Dropout_0"), ("transformer", "feed_forward", "feed_forward.Dropout_0")],
)
def test_dead_units(name, layer, path):
    """Five units before a ReLU have a large negative bias; all others are always active."""
    experiment, params, batch = case(name)
    inside = params["params"]["encoder"]
    inside = inside if name == "classifier_head" else inside["stack_0"]["feed_forward"]
    bias = inside["inner"]["bias"]
    inside["inner"]["bias"] = np.where(np.arange(len(bias)) < 5, -1e3, 1e3).astype(np.float32)
    result = activations(loss_of(experiment), params, batch)
    path = path if name == "classifier_head" else f"encoder.stack_0.{path}"
    assert result[path]["dead"] == pytest.approx(5 / len(bias))
    assert all(values["dead"] == 0 for layer_name, values in result.items() if "Dropout" not in layer_name)
    if name == "transformer":
        assert {"reader.words", "words", "decoder.stack_1.cross_attention.key", "decoder.drop"} <= result.keys()
    assert result[path]["rms"] == pytest.approx(1e3 * np.sqrt(1 - 5 / len(bias)), rel=0.05)


def test_saturation():
    experiment, params, batch = case("recurrent_lm", layers=1)
    layer = params["params"]["stack"]["stack_0"]
    layer["bias"] = layer["bias"] + np.float32(np.repeat([50.0, -50.0, 0.0, 0.0], 8))  # i, f, g, o
    result = activations(loss_of(experiment), params, batch)
    shares = {name.split()[-2]: values["saturated"] for name, values in result.items() if "saturated" in values}
    assert (shares["i"], shares["f"]) == (1.0, 1.0)
    assert shares["o"] < 0.5
    assert "dead" in result["words"]


def test_updates_of_sgd():
    random = np.random.default_rng(0)
    params, gradients = ({"a": random.normal(size=(3, 4)), "b": random.normal(size=5)} for _ in range(2))
    optimizer = with_update_ratios(optax.sgd(0.3))
    _, (_, ratios) = optimizer.update(gradients, optimizer.init(params), params)
    for name, ratio in ratios.items():
        assert ratio == pytest.approx(0.3 * np.linalg.norm(gradients[name]) / np.linalg.norm(params[name]), rel=1e-5)


def test_smooth():
    x = np.random.default_rng(0).normal(size=9)
    half = WINDOW // 2
    expected = [x[max(i - half, 0) : i + half + 1].mean() for i in range(9)]
    np.testing.assert_allclose(smooth(x), expected)
    np.testing.assert_allclose(smooth(x[:2]), [x[:2].mean()] * 2)


def test_usable():
    assert usable(np.array([2.0, 1.0, np.nan, 1.0])) == 2
    assert usable(np.array([np.inf, 1.0])) == 0
    assert usable(np.full(30, 2.0)) == 30
    up = np.append(np.full(20, 1.0), np.full(20, 50.0))
    assert 18 <= usable(up) <= 20
    assert suggest(np.geomspace(1, 2, 40), np.arange(40.0) + 1)["highest"] is None


@pytest.mark.parametrize("curvature", [2.0, 30.0])
def test_range_test_of_a_quadratic(curvature):
    """SGD on a quadratic diverges above 2 / L."""

    def loss(params, batch, context):
        return Loss(0.5 * curvature * (params["x"] ** 2).sum() * batch.weights.sum(), batch.weights.sum(), {})

    sums = {name: jnp.float32(0) for name in ("loss", "weight", "gradient_norm", "steps")}
    state = TrainState(jnp.int32(0), {"x": jnp.ones(3)}, None, None, sums)
    batches = iter([Batch(None, None, np.zeros(8), np.ones(8, np.float32))] * 100)
    rates, losses = range_test(loss, Optimizer("sgd", clip=0.0), 0, state, batches)
    result = suggest(rates, losses)
    assert 1 / curvature < result["highest"] < 1.5 * 2 / curvature
    assert 0.01 / curvature < result["steepest"] < 1 / curvature
    assert usable(losses) < 100


@pytest.mark.parametrize("name", TASKS)
def test_gradients_are_right(name):
    experiment, params, batch = case(name)
    errors = gradient_check(in_float64(experiment), params, batch)
    assert len(errors) == len(jax.tree.leaves(params))
    assert max(errors.values()) < WRONG / 10
    assert max(errors.values()) > 0


def test_a_wrong_gradient():
    """A recurrent matrix without a gradient is found."""
    experiment, params, batch = case("regressor_head", encoder=RecurrentEncoder(Numbers(2), dim=8))
    errors = gradient_check(in_float64(experiment), params, batch)
    assert max(errors.values()) < WRONG


MUTANTS = (
    Mutant(
        "positions counted from the end of the batch",
        "evaluation.diagnosis.gradients",
        "np.where(real, last[:, None] - positions, -1)",
        "np.where(real, len(positions) - 1 - positions, -1)",
        "test_gradients_over_time_of_a_linear_layer",
    ),
    Mutant(
        "the loss of all positions",
        "evaluation.diagnosis.gradients",
        "weights = weights * (np.arange(weights.shape[1]) == last)",
        "weights = weights",
        "test_last_targets",
    ),
    Mutant("pads count", "evaluation.diagnosis.activations", "((x == 0) | ~real)", "(x == 0)", "test_statistics"),
    Mutant(
        "the ratio upside down",
        "evaluation.diagnosis.updates",
        "optax.tree.norm(u) / optax.tree.norm(p)",
        "optax.tree.norm(p) / optax.tree.norm(u)",
        "test_updates_of_sgd",
    ),
    Mutant(
        "the recurrent matrix never learns",
        "layers.scan",
        "jax.tree.map(gradient, operands, taps)",
        "jax.tree.map(lambda *both: 0 * gradient(*both), operands, taps)",
        "test_a_wrong_gradient",
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.replace(" ", "-"))
def test_mutant_is_caught(mutant):
    with planted(mutant, "tests.evaluation.test_diagnose") as mutated, pytest.raises(AssertionError):
        getattr(mutated, mutant.law)()


CONFIG = """
from seqlab.config import Experiment, Schedule
from seqlab.datasets.adding_problem import AddingProblem
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.models.regressor_head import RegressorHead
from seqlab.readers.numbers import Numbers
from seqlab.tasks.regression import Regression
data = AddingProblem(9, 400, 20, 20)
model = RegressorHead(RecurrentEncoder(Numbers(), cell="lstm", dim=8))
experiment = Experiment(model, Regression(features=2), data, steps=7)
"""


def test_command(capsys, tmp_path: Path):
    (tmp_path / "config.py").write_text(CONFIG)
    arguments = ("diagnose", "config.py", "--out", "found", "--data-dir", "data")
    assert call(tmp_path, *arguments) == 0
    told = capsys.readouterr().out
    assert "gradient, source, after the steps" in told
    assert "gradient check: worst relative error" in told
    names = ("gradients_over_time", "activations", "updates", "learning_rate")
    assert all((tmp_path / "found" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)
    result = json.loads((tmp_path / "found" / "diagnosis.json").read_text())
    assert len(result["losses"]) == 7
    assert result["gradients over time"].keys() == {BEFORE, AFTER}
    assert len(result["gradients over time"][AFTER]["source"]["norms"]) == 9
    assert all(line in told for line in result["findings"])
    assert max(result["gradient check"].values()) < WRONG
    assert call(tmp_path, *arguments) == 2
    assert capsys.readouterr().err == "seqlab: found already exists: choose another --out\n"
    assert call(tmp_path, *arguments[:2], "--out", "other", "--first", "0") == 2
    assert capsys.readouterr().err == "seqlab: --first must be at least 1, not 0\n"
    assert call(tmp_path, *arguments[:2], "--out", "other", "--model.encoder.dmi", "4") == 2
    assert "model.encoder.dim" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
