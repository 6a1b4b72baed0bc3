"""Steps of training that record how large each update is."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqlab.distributed.devices import fill_rows, make_runner
from seqlab.runs.trainable import split
from seqlab.system.progress_bar import progress
from seqlab.training.step import LossFunction, make_step, zeros_like
from seqlab.types import Batch, Params, TrainState

AT_ONCE = 10  # losses of this many steps are read together, as many steps late, so that the device never waits


class Steps(NamedTuple):
    """Parameters after some steps; for each step the mean loss [N], and the ratio of update to parameter by parameter
    [N P].
    """

    params: Params
    losses: np.ndarray
    ratios: np.ndarray


def run_steps(
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    seed: int,
    state: TrainState,
    batches: Iterator[Batch],
    count: int,
    enough: Callable[[np.ndarray], bool] = lambda losses: False,
    trainable: str = "",
) -> Steps:
    """Runs `count` steps of training from the parameters of `state`, or stops when `enough` of the losses is true."""
    runner = make_runner()
    optimizer = with_update_ratios(optimizer)
    step = make_step(loss, optimizer, seed, trainable=trainable)

    def advance(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        state, _ = step(state, batch)
        mean = state.sums["loss"] / jnp.maximum(state.sums["weight"], 1.0)
        record = {"loss": mean, "ratios": jnp.stack(jax.tree.leaves(state.optimizer[1]))}
        return dataclasses.replace(state, sums=zeros_like(state.sums)), record

    run = runner.compile(advance)
    state = dataclasses.replace(state, optimizer=optimizer.init(split(state.params, trainable)[0]))
    state = runner.place(jax.tree.map(jnp.copy, state))  # a step donates its state
    records: list[Any] = []
    pending: list[Any] = []
    with progress("steps", count) as bar:
        for batch in itertools.islice(batches, count):
            state, record = run(state, runner.feed(fill_rows(batch, runner.parts)))
            pending.append(record)
            bar()
            if len(pending) == 2 * AT_ONCE:
                records += jax.device_get(pending[:AT_ONCE])
                del pending[:AT_ONCE]
                if enough(np.array([record["loss"] for record in records])):
                    break
    records += jax.device_get(pending)
    return Steps(state.params, *(np.array([record[name] for record in records]) for name in ("loss", "ratios")))


def with_update_ratios(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the optimizer with an extended state: for each parameter, the norm of the last update divided by the
    norm of the parameter.
    """

    def init(params: Params) -> Any:
        return optimizer.init(params), jax.tree.map(lambda _: jnp.float32(0), params)

    def update(updates: Any, state: Any, params: Params = None) -> tuple[Any, Any]:
        updates, inner = optimizer.update(updates, state[0], params)
        return updates, (inner, jax.tree.map(lambda u, p: optax.tree.norm(u) / optax.tree.norm(p), updates, params))

    return optax.GradientTransformation(init, update)
