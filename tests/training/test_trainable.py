"""Trainable and frozen parameters, and learning rates for parts of the model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.config import Experiment, Optimizer, Parallel, Schedule
from seqlab.distributed.devices import fill_rows, make_runner
from seqlab.laws.training import Killed, tiny_experiment
from seqlab.runs.checkpoint import fingerprint
from seqlab.runs.parameters import axes_of
from seqlab.runs.trainable import merge, split
from seqlab.system.errors import SeqlabError
from seqlab.training.state import initial_state, training_step
from seqlab.training.train import train
from seqlab.training.trainable import scale_updates
from tests.mutants import Mutant, planted
from tests.subjects import batch_of, subject

NUMBERS = {"encoder": {"0": {"kernel": 1, "bias": 2}}, "decoder": {"kernel": 3}, "output": {"bias": 4}}
TREE = jax.tree.map(np.float32, {"params": NUMBERS})
PATTERN = "^params/decoder/|bias"


def experiment_of(s, **changes):
    """Returns an experiment with weight decay, averaging and clipping, all of which could change a parameter."""
    settings = {"trainable": PATTERN, "weight_decay": 0.1, "average": 0.9, **changes}
    return dataclasses.replace(
        tiny_experiment(), model=s.model, optimizer=Optimizer("adamw", **settings), schedule=Schedule(warmup=0)
    )


def steps_of(experiment: Experiment, s, parallel: Parallel, parts: int, steps: int = 3):
    """Returns the parameters before some steps, with negative zeros, and the parameters and average after them."""
    runner = make_runner(parallel, parts, axes_of(experiment.model))
    batch = jax.tree.map(np.asarray, batch_of(s))
    experiment = dataclasses.replace(experiment, parallel=parallel, accumulate=parts)
    state = initial_state(experiment, batch)
    params = jax.tree.map(lambda x: jnp.where(jnp.arange(x.size).reshape(x.shape) == 0, -0.0, x), state.params)
    state = dataclasses.replace(state, params=params, average=jax.tree.map(jnp.copy, params))
    before = jax.tree.map(np.array, params)
    state = runner.place(state)
    step = runner.compile(training_step(experiment, runner.axis))
    for _ in range(steps):
        state, _ = step(state, runner.feed(fill_rows(batch, runner.parts)))
    after = runner.fetch(state)
    return before, jax.tree.map(np.array, after.params), jax.tree.map(np.array, after.average)


def bits(tree) -> list[bytes]:
    return [leaf.tobytes() for leaf in jax.tree.leaves(tree)]


def test_split_and_merge():
    trainable, frozen = split(TREE, PATTERN)
    assert trainable == {"params": {"encoder": {"0": {"bias": 2}}, "decoder": {"kernel": 3}, "output": {"bias": 4}}}
    assert frozen == {"params": {"encoder": {"0": {"kernel": 1}}}}
    for pattern in (PATTERN, "", "kernel", "nothing"):
        assert merge(*split(TREE, pattern)) == TREE


def test_integers_are_frozen():
    tree = {"added": {"integers": np.int8(3), "scales": np.float32(4)}, "params": {"bias": np.float32(5)}}
    trainable, frozen = split(tree, "^added/")
    assert trainable == {"added": {"scales": 4}}
    assert merge(trainable, frozen) == tree
    assert split(tree, "integers")[0] == {}
    assert split(TREE, "")[1] == {}


@pytest.mark.parametrize("average", [{}, {"average": 0.0, "average_from": 2}], ids=["moving average", "mean"])
@pytest.mark.parametrize(("name", "parts"), [("jit", 1), ("pmap", 1), ("jit", 2)])
def test_frozen_parameters_do_not_change_by_a_bit(name, parts, average):
    s = subject("transformer")
    before, after, average = steps_of(experiment_of(s, l1=0.1, **average), s, Parallel(name), parts)
    for tree in (after, average):
        frozen, trained = (bits(part) for part in reversed(split(tree, PATTERN)))
        frozen_before, trained_before = (bits(part) for part in reversed(split(before, PATTERN)))
        assert frozen == frozen_before
        assert not set(trained) & set(trained_before)


def test_trained_parameters_move_as_if_all_were_trained():
    """With one step of SGD, the update of a parameter depends only on its own gradient."""
    s = subject("transformer")
    experiment = experiment_of(s)
    results = []
    for pattern in (PATTERN, ""):
        optimizer = Optimizer("sgd", clip=0.0, trainable=pattern)
        one = dataclasses.replace(experiment, optimizer=optimizer, schedule=Schedule("constant", 0.1, warmup=0))
        batch = jax.tree.map(jnp.asarray, batch_of(s))
        state, _ = jax.jit(training_step(one))(initial_state(one, batch), batch)
        results.append(split(state.params, PATTERN)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *results)


def test_rates_of_parts():
    tree = {"params": {"encoder": {"kernel": jnp.ones(2)}, "decoder": {"kernel": jnp.ones(3)}}}
    scale = scale_updates((("encoder", 0.1), ("kernel", 0.5)), {})
    scaled, _ = scale.update(tree, scale.init(tree), tree)
    assert scaled["params"]["encoder"]["kernel"].tolist() == pytest.approx([0.1] * 2)
    assert scaled["params"]["decoder"]["kernel"].tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trainable": "("}, r"optimizer.trainable: '\(' is not a regular expression"),
        (
            {"trainable": "adapter"},
            r"optimizer.trainable: 'adapter' matches no parameter; examples of paths: params/",
        ),
        ({"rates": (("[", 0.1),)}, r"optimizer.rates: '\[' is not a regular expression"),
        ({"rates": (("decoder", 0.0),)}, "optimizer.rates: the factor of 'decoder' must be above 0, not 0.0"),
        ({"rates": (("adapter", 0.5),)}, "optimizer.rates: 'adapter' matches no parameter"),
    ],
)
def test_bad_patterns(fields, message):
    s = subject("transformer")
    with pytest.raises(SeqlabError, match=message):
        initial_state(experiment_of(s, **fields), batch_of(s))


@pytest.mark.parametrize(
    "options",
    [{"average": 0.9}, {"average_from": 2, "l1": 0.01, "unfreeze": (("bias|norm", 3),)}],
    ids=["moving average", "mean, L1 and unfreezing"],
)
def test_a_resumed_run_with_frozen_parts_ends_the_same(tmp_path, options):
    optimizer = Optimizer(trainable="decoder", rates=(("kernel", 0.5),), **options)
    experiment = dataclasses.replace(tiny_experiment(), optimizer=optimizer, steps=4)
    lines = []
    train(experiment, tmp_path / "whole", tmp_path / "data", say=lines.append)
    (line,) = [line for line in lines if "are trained" in line]
    assert 0 < int(line.partition("(")[2].split()[0].replace(",", "")) < int(line.split()[0].replace(",", ""))

    def end_at_step_2(line: str) -> None:
        if line.startswith("step 2:"):
            raise Killed

    with pytest.raises(Killed):
        train(experiment, tmp_path / "cut", tmp_path / "data", say=end_at_step_2)
    train(experiment, tmp_path / "cut", tmp_path / "data", say=lines.append)
    assert fingerprint(tmp_path / "cut", 4) == fingerprint(tmp_path / "whole", 4)


MUTANTS = (
    Mutant(
        "frozen parameters decay",
        "training.step",
        "params=merge(trained, frozen),",
        "params=merge(trained, jax.tree.map(lambda x: 0.999 * x, frozen)),",
        "test_frozen_parameters_do_not_change_by_a_bit",
    ),
    Mutant(
        "the average of frozen parameters moves",
        "training.step",
        "return merge(update(old, trained, state.step), frozen)",
        "return update(state.average, merge(trained, frozen), state.step)",
        "test_frozen_parameters_do_not_change_by_a_bit",
    ),
    Mutant(
        "the last matching pattern of the rates applies",
        "training.trainable",
        "(rate for pattern, rate in rates if",
        "(rate for pattern, rate in reversed(rates) if",
        "test_rates_of_parts",
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.replace(" ", "-"))
def test_mutant_is_caught(mutant):
    arguments = ("jit", 1, {}) if mutant.law.startswith("test_frozen") else ()
    with planted(mutant, "tests.training.test_trainable") as mutated, pytest.raises(AssertionError):
        getattr(mutated, mutant.law)(*arguments)
