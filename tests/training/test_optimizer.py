"""Optimizers and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqlab.config import Optimizer, Schedule
from seqlab.system.errors import SeqlabError
from seqlab.training.optimizer import optimizer_at
from seqlab.training.schedule import make_schedule


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "momentum", "nesterov", "rmsprop", "adagrad"])
def test_every_optimizer_goes_downhill(name):
    goal = jnp.array([1.0, -2.0, 3.0])
    tx = optimizer_at(Optimizer(name, clip=0.0), make_schedule(Schedule("constant", peak=0.1, warmup=0), 200))
    x = jnp.zeros(3)
    state = tx.init(x)
    update = jax.jit(lambda x, state: tx.update(2 * (x - goal), state, x))
    for _ in range(200):
        change, state = update(x, state)
        x = optax.apply_updates(x, change)
    assert float(((x - goal) ** 2).sum()) < 5


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("constant", (10, 50, 100), (1, 1, 1)),
        ("inverse_sqrt", (10, 40, 90), (1, 0.5, 1 / 3)),
        ("noam", (10, 40), (640**-0.5, 2560**-0.5)),
        ("linear", (10, 55, 100), (1, 46 / 91, 1 / 91)),
        ("cosine", (10, 55, 100), (1, np.cos(np.pi * 45 / 182) ** 2, np.cos(np.pi * 90 / 182) ** 2)),
        ("step", (10, 30, 31, 60, 61), (1, 1, 0.5, 0.5, 0.25)),
    ],
)
def test_schedules(name, at, expected):
    rate = make_schedule(Schedule(name, peak=2.0, warmup=10, dim=64, every=30), 100)
    assert float(rate(4)) == pytest.approx(0.5 * float(rate(9))), "warm-up is linear"
    np.testing.assert_allclose([float(rate(t - 1)) for t in at], 2.0 * np.array(expected), atol=1e-6)


def test_clipping_is_by_global_norm():
    tx = optimizer_at(Optimizer("sgd", clip=1.0), make_schedule(Schedule("constant", peak=1.0, warmup=0), 10))
    gradients = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    change, _ = tx.update(gradients, tx.init(gradients), gradients)
    np.testing.assert_allclose([change["a"][0], change["b"][0]], [-0.6, -0.8], rtol=1e-6)


def test_weight_decay_spares_vectors():
    tx = optimizer_at(
        Optimizer("adamw", weight_decay=0.1, clip=0.0), make_schedule(Schedule("constant", peak=1.0, warmup=0), 10)
    )
    params = {"matrix": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    change, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert float(change["matrix"].max()) < 0
    assert not change["bias"].any()


def test_unknown_names():
    with pytest.raises(SeqlabError, match="optimizer.name must be one of adam"):
        optimizer_at(Optimizer("lion"), make_schedule(Schedule(), 10))
    with pytest.raises(SeqlabError, match="schedule.name must be one of constant"):
        make_schedule(Schedule("warm"), 10)(0)
