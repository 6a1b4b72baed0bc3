"""TODO evaluation.diagnosis.updates."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqlab.distributed.devices import fill_rows, make_runner
from seqlab.system.progress import progress
from seqlab.training.step import Loss, make_step
from seqlab.types import Batch, Params, TrainState, zeros_like

AT_ONCE = 10  # steps whose losses are read together, and so many steps late, so that the device never waits


# Steps, and the learning rate
class Steps(NamedTuple):
    """Parameters after some steps, and of each step the mean loss [N] and by parameter the ratio of update to
    parameter [N P].
    """

    params: Params
    losses: np.ndarray
    ratios: np.ndarray


def run_steps(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    seed: int,
    state: TrainState,
    batches: Iterator[Batch],
    count: int,
    enough: Callable[[np.ndarray], bool] = lambda losses: False,
) -> Steps:
    """`count` steps of training from the parameters of `state`, or until the losses so far are enough."""
    runner = make_runner()
    optimizer = watched(optimizer)
    step = make_step(loss, optimizer, seed)

    def advance(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        state, _ = step(state, batch)
        mean = state.sums["loss"] / jnp.maximum(state.sums["weight"], 1.0)
        told = {"loss": mean, "ratios": jnp.stack(jax.tree.leaves(state.optimizer[1]))}
        return dataclasses.replace(state, sums=zeros_like(state.sums)), told

    run = runner.compile(advance)
    state = dataclasses.replace(state, optimizer=optimizer.init(state.params))
    state = runner.place(jax.tree.map(jnp.copy, state))  # a step consumes what it is given
    told: list[Any] = []
    waiting: list[Any] = []
    with progress("steps", count) as bar:
        for batch in itertools.islice(batches, count):
            state, now = run(state, runner.feed(fill_rows(batch, runner.parts)))
            waiting.append(now)
            bar()
            if len(waiting) == 2 * AT_ONCE:
                told += jax.device_get(waiting[:AT_ONCE])
                del waiting[:AT_ONCE]
                if enough(np.array([one["loss"] for one in told])):
                    break
    told += jax.device_get(waiting)
    return Steps(state.params, *(np.array([one[name] for one in told]) for name in ("loss", "ratios")))


def watched(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer, with a state that holds beside its own, by parameter, the norm of the last update over that of
    the parameter.
    """

    def init(params: Params) -> Any:
        return optimizer.init(params), jax.tree.map(lambda _: jnp.float32(0), params)

    def update(updates: Any, state: Any, params: Params = None) -> tuple[Any, Any]:
        updates, inner = optimizer.update(updates, state[0], params)
        return updates, (inner, jax.tree.map(lambda u, p: optax.tree.norm(u) / optax.tree.norm(p), updates, params))

    return optax.GradientTransformation(init, update)
