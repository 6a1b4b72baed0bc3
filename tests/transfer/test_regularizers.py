"""Stochastic depth, weight normalization, and mixtures of summaries."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab import catalogue
from seqlab.config import Batching, Optimizer, Parallel
from seqlab.distributed.devices import fill_rows
from seqlab.laws.subject import make_subject
from seqlab.laws.training import tiny_experiment
from seqlab.layers.dropout import drop_rows
from seqlab.layers.mixup import draw_mixture
from seqlab.layers.nesting import with_fields
from seqlab.layers.transformer import Stack
from seqlab.models.classifier_head import ClassifierHead
from seqlab.parametrizations.weight_norm import WeightNorm, scale_directions
from seqlab.runs.parametrized import apply_parametrization, init_experiment_parameters, trained_pattern
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.tasks.classification_distillation import ClassificationDistillation
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.training.checks import check_experiment
from seqlab.training.state import initial_state, training_step
from seqlab.training.train import train
from seqlab.types import Batch, Context
from tests.proofs.runs import check_devices, check_resume, quiet, small
from tests.subjects import batch_of, subject
from tests.transfer.splits import splits_of, write_splits

ROWS = 3000


def stack_of(layers, rate, **options):
    sizes = (layers, 4, 2, 6, 0.0, 0.0)
    return Stack(*sizes, activation="gelu", stochastic_depth=rate, **options)


def passes_of(stack, key=0):
    """Returns equal rows [B 1 D], the parameters, and a function from parameters to the outputs in training."""
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (1, 1, 4)), (ROWS, 1, 4))
    mask = jnp.ones((ROWS, 1), bool)
    params = jax.jit(functools.partial(stack.init, method="encode"))(jax.random.key(0), x[:1], mask[:1])

    @jax.jit
    def run(params):
        rngs = {"dropout": jax.random.key(key)}
        return stack.apply(params, x, mask, train=True, rngs=rngs, method="encode")[:, 0]

    return x, params, run


def layer_outputs(stack, params, x):
    """Returns the four outputs of a layer without and with its scaled branches, computed from its parts."""

    def combine(module, x, keep):
        layer, scale = module.stack[0], 1 / (1 - stack.stochastic_depth)
        y = layer.self_norm(x)
        y, _ = layer.self_attention.attend(y, *layer.self_attention.keys_values(y), jnp.ones((1, 1, 1), bool))
        x = x + keep[0] * scale * y
        x = x + keep[1] * scale * layer.feed_forward(layer.feed_forward_norm(x))
        return module.finish(x)

    choices = [*itertools.product((0.0, 1.0), repeat=2)]
    run = jax.jit(functools.partial(stack.apply, method=combine))
    return np.stack([np.asarray(run(params, x[:1], keep))[0, 0] for keep in choices])


def test_branches_are_dropped_by_row():
    """Each row is a layer without some of its branches, as often as the rate says."""
    stack = stack_of(1, 0.3)
    x, params, run = passes_of(stack)
    distances = np.abs(np.asarray(run(params))[:, None] - layer_outputs(stack, params, x)).max(-1)
    assert distances.min(1).max() < 1e-5
    shares = np.bincount(distances.argmin(1), minlength=4) / ROWS
    np.testing.assert_allclose(shares, [0.09, 0.21, 0.21, 0.49], atol=0.03)


@pytest.mark.parametrize("options", [{}, {"scan": True}, {"remat": True}, {"scan": True, "remat": True}])
def test_the_rate_grows_with_depth(options):
    """If the other layers are the identity, layer i is the identity in a share (rate (i + 1) / n) ** 2 of rows."""
    stack = stack_of(3, 0.9, **options)
    x, params, run = passes_of(stack)
    identity = np.asarray(stack.apply(params, x[:1], method="finish"))[0, 0]
    for i in range(3):
        leaves = flatten_dict(params, sep="/")
        silent = {
            path: leaf if f"stack_{i}/" in path or "stack_" not in path or "norm" in path else 0 * leaf
            for path, leaf in leaves.items()
        }
        unchanged = np.abs(np.asarray(run(unflatten_dict(silent, sep="/"))) - identity).max(-1) < 1e-6
        assert abs(unchanged.mean() - (0.3 * (i + 1)) ** 2) < 0.03


def test_the_expectation_is_kept():
    x = jnp.ones((20_000, 2, 3))
    dropped = np.asarray(drop_rows(jax.random.key(0), x, 0.25))
    assert np.unique(dropped).tolist() == pytest.approx([0.0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all(), "a row is dropped as a whole"
    assert abs(dropped.mean() - 1) < 0.02


@pytest.mark.parametrize(
    ("kind", "name"),
    [("models", "transformer"), ("models", "transformer_lm"), ("encoders", "transformer"), ("encoders", "bert")],
)
def test_models_with_stochastic_depth(kind, name):
    """A rate changes the loss in training, but no parameter and no output in evaluation."""
    part = catalogue.module(kind, name).TINY.clone(dropout=0.0)
    outputs = []
    for rate in (0.0, 0.9):
        model = part.clone(stochastic_depth=rate)
        model = ClassifierHead(model, classes=3, dropout=0.0) if kind == "encoders" else model
        s = subject("classifier_head") if kind == "encoders" else subject(name)
        inputs, prefix = jax.tree.map(jnp.asarray, (s.inputs, s.prefix))
        init = jax.jit(functools.partial(model.init, train=False, method="outputs"))
        run = jax.jit(functools.partial(model.apply, method="outputs"), static_argnames="train")
        params, key = init(jax.random.key(0), inputs, prefix), {"dropout": jax.random.key(1)}
        outputs.append([np.asarray(run(params, inputs, prefix, train=train, rngs=key)) for train in (False, True)])
    (evaluated, trained), (evaluated_deep, trained_deep) = outputs
    np.testing.assert_array_equal(evaluated, evaluated_deep)
    np.testing.assert_allclose(trained, evaluated, atol=1e-6)
    assert np.abs(trained_deep - trained).max() > 1e-3


def test_a_rate_out_of_bounds():
    with pytest.raises(SeqlabError, match="stochastic_depth must be at least 0 and below 1, not 1.0"):
        passes_of(stack_of(1, 1.0))


def normalized_in_numpy(direction, norm, count):
    result = np.empty_like(direction)
    for channel in np.ndindex(direction.shape[count:]):
        vector = direction[(..., *channel)]
        result[(..., *channel)] = norm[channel] * vector / np.sqrt((vector**2).sum())
    return result


@pytest.mark.parametrize(("shape", "count"), [((5, 3), 1), ((4, 2, 3), 1), ((2, 3, 4), 2)])
def test_weight_normalization_against_its_definition(shape, count):
    random = np.random.default_rng(0)
    direction, norm = random.normal(size=shape), random.normal(size=shape[count:])
    expected = normalized_in_numpy(direction, norm, count)
    np.testing.assert_allclose(
        scale_directions(np.float32(direction), np.float32(norm)), expected, rtol=1e-4, atol=1e-6
    )


def test_weight_normalization_of_a_model():
    """Values equal the base's; direction, norm and all other parameters are trained; a zero channel stays finite."""
    s = subject("transformer_lm", dropout=0.0)
    optimizer = Optimizer("sgd", clip=0.0)
    experiment = dataclasses.replace(
        tiny_experiment(), model=s.model, task=LanguageModeling(), parametrization=WeightNorm(), optimizer=optimizer
    )
    assert trained_pattern(experiment) == ""
    params = init_experiment_parameters(experiment)
    applied = flatten_dict(jax.jit(functools.partial(apply_parametrization, experiment))(params), sep="/")
    base = flatten_dict(init_experiment_parameters(dataclasses.replace(experiment, parametrization=None)), sep="/")
    for path, leaf in base.items():
        np.testing.assert_allclose(applied[path], leaf, rtol=1e-6, err_msg=path)
    assert params["added"]["params.decoder.stack_0.self_attention.out.kernel"]["norm"].shape == (8,)
    assert params["added"]["params.decoder.stack_0.self_attention.query.kernel"]["norm"].shape == (2, 4)
    batch = jax.tree.map(jnp.asarray, batch_of(s))
    state = initial_state(experiment, batch)
    after, _ = jax.jit(training_step(experiment))(jax.tree.map(jnp.copy, state), batch)
    before, moved = flatten_dict(state.params, sep="/"), flatten_dict(after.params, sep="/")
    assert all(not np.array_equal(before[path], moved[path]) for path in before)
    zero = {"direction": jnp.zeros((2, 2)), "norm": jnp.zeros(2)}
    gradient = jax.grad(lambda tree: scale_directions(**tree).sum())(zero)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_partners_are_real_rows():
    weights = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    real = np.flatnonzero(weights)
    drawn = [draw_mixture(jax.random.key(i), weights, 0.4) for i in range(300)]
    partners = np.stack([np.asarray(row)[real] for row, _ in drawn])
    np.testing.assert_array_equal(np.sort(partners, axis=1), np.broadcast_to(real, partners.shape))
    assert len(np.unique(partners, axis=0)) == 24
    shares = np.array([share for _, share in drawn])
    assert abs(shares.mean() - 0.5) < 0.08
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.03  # of Beta(alpha, alpha)


def cross_entropy_in_numpy(logits, target):
    return np.logaddexp.reduce(logits) - logits[target]


def test_mixtures_against_their_definition():
    s = make_subject(with_fields(catalogue.module("models", "classifier_head").TINY, dropout=0.0))
    task = Classification(mixup=0.4)
    weights = np.float32([1, 1, 0, 1, 1])
    batch, key = dataclasses.replace(batch_of(s), weights=jnp.asarray(weights)), jax.random.key(3)
    loss_of = jax.jit(lambda batch, context: task.loss(s.model, s.params, batch, context))
    loss, weight, sums, _ = loss_of(batch, Context(key))
    partners, share = map(np.asarray, draw_mixture(key, jnp.asarray(weights), 0.4))
    encoder = {"params": s.params["params"]["encoder"]}
    summary = np.asarray(s.model.encoder.apply(encoder, batch.inputs, train=False, method="encode").summary)
    output = s.params["params"]["output"]
    mixed = share * summary + (1 - share) * summary[partners]
    logits = mixed @ np.asarray(output["kernel"]) + np.asarray(output["bias"])
    expected = sum(
        weights[i]
        * (
            share * cross_entropy_in_numpy(logits[i], s.targets[i])
            + (1 - share) * cross_entropy_in_numpy(logits[i], s.targets[partners[i]])
        )
        for i in range(5)
    )
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(weight) == pytest.approx(4)
    assert sums.keys() == {"nll", "correct"}
    plain = jax.jit(lambda batch: Classification().loss(s.model, s.params, batch, Context()))(batch)
    assert float(loss_of(batch, Context()).sum) == float(plain.sum)


def test_filled_rows_do_not_enter_mixtures():
    s = subject("classifier_head", dropout=0.0)
    batch, task = Batch(s.inputs, None, s.targets, s.weights), Classification(mixup=1.0)
    filled = fill_rows(jax.tree.map(np.asarray, batch), 8)
    spoiled = filled.replace(targets=np.where(filled.weights > 0, filled.targets, 2))
    loss = jax.jit(lambda rows: task.loss(s.model, s.params, rows, Context(jax.random.key(0))).sum)
    losses = [float(loss(rows)) for rows in (filled, spoiled)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"parallel": Parallel("pmap")}])
def test_mixtures_need_the_whole_batch(changes):
    head = catalogue.without_sizes(catalogue.module("models", "classifier_head").TINY)
    experiment = dataclasses.replace(tiny_experiment(), model=head, task=Classification(mixup=0.2), **changes)
    with pytest.raises(SeqlabError, match="the loss of Classification depends on the whole batch"):
        check_experiment(experiment)
    check_experiment(dataclasses.replace(experiment, task=Classification()))


def test_mixtures_without_effect_are_refused():
    s = subject("pair_head")
    batch = Batch(s.inputs, None, s.targets, s.weights)
    with pytest.raises(SeqlabError, match="task.mixup needs a model with classify_mixtures, .* not PairHead"):
        Classification(mixup=0.2).loss(s.model, s.params, batch, Context(jax.random.key(0)))
    with pytest.raises(SeqlabError, match="task.mixup is not supported with a teacher"):
        ClassificationDistillation(mixup=0.2)
    with pytest.raises(SeqlabError, match="task.mixup must be a finite number of at least 0, not -1"):
        Classification(mixup=-1.0)


def test_training_with_all_resumes_and_is_the_same_on_devices(tmp_path):
    """A stopped and resumed run has the hashes of an unstopped run; devices agree on a step."""

    def row(i):
        return {"text": f"{'a b ' * (1 + i % 7)}{'xy'[i % 2]}", "mood": "xy"[i % 2]}

    write_splits(tmp_path, row, (40, 8, 8))
    encoder = catalogue.module("encoders", "transformer").TINY.clone(dropout=0.0, stochastic_depth=0.2)
    experiment = small(
        catalogue.without_sizes(ClassifierHead(encoder, dropout=0.0)),
        Classification(mixup=0.3),
        splits_of(tmp_path, source="text", label="mood"),
        parametrization=WeightNorm(),
        batching=Batching(tokens=120, buckets=3, curriculum=2),
        optimizer=Optimizer(depth_decay=0.7, unfreeze=(("stack_0", 3),), average_from=5, l1=1e-3),
    )
    train(experiment, tmp_path / "run", tmp_path / "data", say=quiet)
    check_resume(experiment, tmp_path / "run", tmp_path / "data")
    check_devices(experiment, tmp_path / "run", tmp_path / "data")
