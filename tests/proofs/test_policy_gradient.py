"""Online policy gradient with a tabular policy: rollouts of the current policy, with several updates each."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seqlab_parts.models.policy_table import PolicyTable
from seqlab_parts.tasks.policy_gradient import PolicyGradient

from seqlab.config import Optimizer, Parallel, Schedule, Validation
from seqlab.datasets.local_files import LocalFiles
from seqlab.evaluation import evaluate
from seqlab.layers.nesting import blank_inputs
from seqlab.runs import loading
from seqlab.system.errors import SeqlabError
from seqlab.training.checks import check_experiment
from seqlab.training.schedule import make_schedule
from seqlab.training.state import optimizer_of
from seqlab.training.train import train
from seqlab.types import Batch, Context
from tests.proofs.runs import check_devices, check_resume, leaves_of, quiet, small

STATES, ACTIONS = "abcdefg", "xyz"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with states and their correct actions, and a run."""
    home = tmp_path_factory.mktemp("policy")
    for split, count in (("train", 280), ("validation", 14), ("test", 14)):
        rows = [{"state": STATES[i % 7], "action": ACTIONS[i % 7 % 3]} for i in range(count)]
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(playing(home), home / "run", home / "data", say=quiet)
    return home


def playing(home, **changes):
    files = (str(home / f"{split}.jsonl") for split in ("train", "validation", "test"))
    data = LocalFiles(*files, source="state", label="action")
    settings = {"optimizer": Optimizer("sgd", clip=0.0), "validation": Validation(every=4, examples=14)}
    return small(PolicyTable(), PolicyGradient(), data, **settings | changes)


def records_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["jit", "pmap"])
def test_it_resumes_bit_for_bit(home, tmp_path, name):
    experiment = playing(home, parallel=Parallel(name))
    train(experiment, tmp_path / "whole", home / "data", say=quiet)
    check_resume(experiment, tmp_path / "whole", home / "data")


def test_it_is_the_same_on_devices(home):
    check_devices(playing(home), home / "run", home / "data")


def test_it_learns_the_right_actions(home):
    schedule = dataclasses.replace(playing(home).schedule, peak=1.0)
    train(playing(home, steps=60, schedule=schedule, hash_every=0), home / "long", home / "data", say=quiet)
    scores = evaluate.evaluate(loading.load(home / "long", "last"), "test", home / "data").scores
    assert next(score.value for score in scores if score.name == "accuracy") == 100


@pytest.fixture(scope="module")
def once(home):
    """Returns a run with one update per rollout."""
    experiment = dataclasses.replace(playing(home), task=PolicyGradient(updates=1))
    train(experiment, home / "once", home / "data", say=quiet)
    return home / "once"


def test_the_first_ratio_is_one(once):
    """With one update, the policy does not change between rollout and update."""
    ratios = [record["ratio"] for record in records_of(once) if "ratio" in record]
    assert ratios == pytest.approx([1.0] * len(ratios), abs=1e-5)
    assert len(ratios) == 8


def test_updates_of_one_rollout_count_as_one_step(home, once):
    """Three updates give a different table than one, but the run has the same number of steps."""
    tables = [leaves_of(run)["params/table"] for run in (once, home / "run")]
    assert not np.array_equal(*tables)
    assert max(record["step"] for record in records_of(home / "run")) == 8


def test_the_schedule_counts_rollouts(home):
    """The updates of a rollout share one learning rate, and a linear schedule ends with the last rollout."""
    schedule = Schedule(name="linear", peak=1.0, warmup=0)
    experiment = playing(home, schedule=schedule, steps=4)
    optimizer, ones = optimizer_of(experiment), {"x": jnp.ones(())}
    state, rates = optimizer.init(ones), []
    for _ in range(4 * experiment.task.updates):
        update, state = optimizer.update(ones, state, ones)
        rates.append(-float(update["x"]))
    expected = [float(make_schedule(schedule, 4)(step)) for step in range(4)]
    assert rates == pytest.approx(np.repeat(expected, 3).tolist())
    assert rates[0] > rates[3] > rates[6]


def test_no_updates_are_refused(home):
    with pytest.raises(SeqlabError, match="updates must be an integer of at least 1, not 0"):
        check_experiment(dataclasses.replace(playing(home), task=PolicyGradient(updates=0)))


def test_the_estimate_is_the_exact_gradient_in_the_mean():
    """For a softmax policy, d E[reward] / d logits = p (indicator of the correct action - its probability)."""
    model, task = PolicyTable(classes=3).clone(reader=PolicyTable().reader.clone(vocabulary=4)), PolicyGradient()
    random = np.random.default_rng(0)
    params = {"params": {"table": random.normal(size=(4, 3)).astype(np.float32)}}
    rows = 40_000
    inputs = blank_inputs(model, rows, 1)
    inputs = dataclasses.replace(inputs, ids=np.full((rows, 1), 2, np.int32))
    batch = Batch(inputs, None, np.full(rows, 1, np.int32), np.ones(rows, np.float32))

    @jax.jit
    def gradient(params):
        experience = task.rollout(model, params, batch, Context(jax.random.key(0)))
        return jax.grad(lambda p: task.loss(model, p, experience, Context()).sum / rows)(params)

    probabilities = np.asarray(jax.nn.softmax(params["params"]["table"][2]))
    exact = -probabilities[1] * (np.eye(3)[1] - probabilities)
    found = np.asarray(gradient(params)["params"]["table"])
    np.testing.assert_allclose(found[2], exact, atol=0.01)
    assert not found[[0, 1, 3]].any()
    assert jnp.isfinite(found).all()
