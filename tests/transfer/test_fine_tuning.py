"""Optimizer options for fine-tuning: rates by depth, gradual unfreezing, the L1 norm, and the mean of parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from seqlab import catalogue
from seqlab.config import Optimizer, Parallel, Schedule
from seqlab.distributed.devices import fill_rows, make_runner
from seqlab.laws.training import tiny_experiment
from seqlab.models.classifier_head import ClassifierHead
from seqlab.parametrizations.lora import Lora
from seqlab.runs.parameters import axes_of
from seqlab.system.errors import SeqlabError
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.training.depth import depth_factors
from seqlab.training.state import initial_state, training_step
from tests.subjects import batch_of, subject

RATE = 0.1


def experiment_of(model, optimizer, **changes):
    schedule = Schedule("constant", RATE, warmup=0)
    return dataclasses.replace(tiny_experiment(), model=model, optimizer=optimizer, schedule=schedule, **changes)


def states_after(optimizer, steps, parallel=None, parts=1, **changes):
    """Returns the states before and after each of some steps, as NumPy arrays. Parameters begin with -0.0."""
    s, parallel = subject("transformer_lm", dropout=0.0), parallel or Parallel()
    experiment = experiment_of(
        s.model, optimizer, task=LanguageModeling(), parallel=parallel, accumulate=parts, **changes
    )
    batch = jax.tree.map(np.asarray, batch_of(s))
    runner = make_runner(parallel, parts, axes_of(s.model))
    state = initial_state(experiment, batch)
    params = jax.tree.map(lambda x: jnp.where(jnp.arange(x.size).reshape(x.shape) == 0, -0.0, x), state.params)
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    states = [jax.tree.map(np.array, dataclasses.replace(state, params=params, average=average))]
    state = runner.place(states[0])
    step = runner.compile(training_step(experiment, runner.axis))
    for _ in range(steps):
        state, _ = step(state, runner.feed(fill_rows(batch, runner.parts)))
        states.append(jax.tree.map(np.array, runner.fetch(state)))
    return states


def leaves_of(params):
    return flatten_dict(params, sep="/")


def sgd(**options):
    return Optimizer("sgd", clip=0.0, **options)


def factors_of(model, decay=0.5, **changes):
    return depth_factors(experiment_of(model, sgd(depth_decay=decay), **changes))


def test_rates_of_a_stack():
    """The factors follow the formula of the docs, written out for an encoder of three layers."""
    encoder = catalogue.module("encoders", "bert").TINY.clone(layers=3)
    factors = factors_of(ClassifierHead(encoder, classes=3))
    for path, factor in factors.items():
        layer = next((i for i in range(3) if f"/stack_{i}/" in path), None)
        above = path.startswith("params/output/") or "/last_norm/" in path
        expected = 1.0 if above else 0.5**3 if layer is None else 0.5 ** (2 - layer)
        assert factor == pytest.approx(expected), path
    assert factors["params/encoder/embedding_norm/scale"] == 0.5**3
    assert len({*factors.values()}) == 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "transformer",
            {
                "words/table": 2,
                "reader/words/table": 2,
                "encoder/stack_0": 1,
                "decoder/stack_1": 0,
                "encoder/last": 0,
            },
        ),
        ("conv_seq2seq", {"source_positions/table": 2, "encoder_0": 1, "mix_1": 0, "query_0": 1, "words/bias": 0}),
        ("tcn_lm", {"words/table": 2, "blocks_0": 1, "blocks_1": 0}),
    ],
)
def test_rates_of_generators(name, expected):
    model = catalogue.module("models", name).TINY
    factors = factors_of(model)
    for prefix, layers_above in expected.items():
        selected = [factor for path, factor in factors.items() if path.startswith(f"params/{prefix}")]
        assert selected
        assert {*selected} == {0.5**layers_above}, prefix


def test_rates_of_nested_stacks():
    """An encoder in an encoder: the layers of each count separately."""
    factors = factors_of(ClassifierHead(catalogue.module("encoders", "elmo").TINY.clone(layers=3), classes=3))
    assert factors["params/encoder/stack/forward_0/input/kernel"] == 0.25
    assert factors["params/encoder/encoder/words/table"] == 0.25
    assert factors["params/encoder/encoder/backward_0/stack_0/input/kernel"] == 0.5
    assert factors["params/encoder/mixture"] == 1.0


def test_an_adapter_has_the_rate_of_its_base():
    factors = factors_of(catalogue.module("models", "transformer").TINY, parametrization=Lora())
    assert factors["added/params.encoder.stack_0.feed_forward.inner.kernel/a"] == 0.5
    assert factors["added/params.encoder.stack_1.feed_forward.inner.kernel/b"] == 1.0


@pytest.mark.parametrize("name", ["kim", "mean"])
def test_a_model_without_a_stack(name):
    """The convolutions of different widths read the same embeddings, so they are not a stack."""
    head = ClassifierHead(catalogue.module("encoders", name).TINY, classes=3)
    with pytest.raises(SeqlabError, match="optimizer.depth_decay: ClassifierHead has no stack of several layers"):
        factors_of(head)
    assert factors_of(head, decay=1.0) == {}


def test_the_update_is_multiplied():
    before, plain = (leaves_of(state.params) for state in states_after(sgd(), 1))
    _, decayed = states_after(sgd(depth_decay=0.5, rates=(("self_norm", 0.1),)), 1)
    factors = factors_of(subject("transformer_lm", dropout=0.0).model)
    for path, after in leaves_of(decayed.params).items():
        factor = factors[path] * (0.1 if "self_norm" in path else 1.0)
        expected = before[path] + factor * (plain[path] - before[path])
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(("name", "parts", "clip"), [("jit", 1, 0.0), ("pmap", 1, 1.0), ("jit", 2, 1.0)])
def test_frozen_until_their_step(name, parts, clip):
    """Parameters keep their bits and moments of zero before their step, and change from it on."""
    unfreeze = (("stack_1", 2), ("decoder/|words", 4), ("decoder", 9))
    optimizer = Optimizer("adamw", weight_decay=0.1, clip=clip, l1=0.01, unfreeze=unfreeze)
    states = states_after(optimizer, 4, Parallel(name), parts)
    for path, first in leaves_of(states[0].params).items():
        start = 2 if "stack_1" in path else 4
        for step in range(1, 5):
            after = leaves_of(states[step].params)[path]
            assert (after.tobytes() == first.tobytes()) == (step < start), (path, step)
    waiting = [leaf for path, leaf in moments_of(states[3]) if "words" in path]
    assert waiting
    assert not any(leaf.any() for leaf in waiting)
    assert all(leaf.any() for path, leaf in moments_of(states[4]) if "words" in path)


def moments_of(state):
    """Returns the moments of an optimizer with their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(state.optimizer)[0]
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
    return [(path, leaf) for path, leaf in named if "params/" in path]


def test_frozen_gradients_do_not_count_in_the_clipped_norm():
    frozen = "^params/(?!decoder/stack_1)"
    _, waiting = states_after(Optimizer("sgd", clip=0.01, unfreeze=((frozen, 9),)), 1)
    _, alone = states_after(Optimizer("sgd", clip=0.01, trainable="^params/decoder/stack_1"), 1)
    for path, after in leaves_of(waiting.params).items():
        np.testing.assert_allclose(after, leaves_of(alone.params)[path], rtol=1e-5, atol=1e-7, err_msg=path)


def test_the_subgradient_of_the_l1_norm():
    before, plain = states_after(sgd(), 1)
    _, penalized = states_after(sgd(l1=0.03), 1)
    for path, expected in leaves_of(plain.params).items():
        first = leaves_of(before.params)[path]
        expected = expected - RATE * 0.03 * np.sign(first) if first.ndim > 1 else expected
        np.testing.assert_allclose(leaves_of(penalized.params)[path], expected, rtol=1e-5, atol=1e-6, err_msg=path)
    assert penalized.sums["loss"] == plain.sums["loss"]


@pytest.mark.parametrize("first", [1, 3])
def test_the_mean_of_parameters(first):
    states = states_after(sgd(average_from=first), 5)
    for step, state in enumerate(states[1:], 1):
        members = [leaves_of(earlier.params) for earlier in states[min(first, step) : step + 1]]
        for path, average in leaves_of(state.average).items():
            expected = np.mean([leaves[path] for leaves in members], axis=0, dtype=np.float64)
            np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6, err_msg=f"{path} at step {step}")
            if len(members) == 1:
                assert np.array_equal(average, members[0][path])


@pytest.mark.parametrize(("name", "parts"), [("pmap", 1), ("jit", 2)])
def test_devices_and_parts_agree(name, parts):
    optimizer = sgd(depth_decay=0.5, l1=0.01, average_from=2, unfreeze=(("stack_0/", 3),))
    *_, alone = states_after(optimizer, 4)
    *_, divided = states_after(optimizer, 4, Parallel(name), parts)
    for tree, expected in ((divided.params, alone.params), (divided.average, alone.average)):
        for path, leaf in leaves_of(tree).items():
            np.testing.assert_allclose(leaf, leaves_of(expected)[path], rtol=1e-4, atol=1e-5, err_msg=path)


def test_a_pattern_that_matches_nothing():
    with pytest.raises(SeqlabError, match="optimizer.unfreeze: 'adapter' matches no parameter; examples of paths: "):
        states_after(sgd(unfreeze=(("adapter", 3),)), 0)
