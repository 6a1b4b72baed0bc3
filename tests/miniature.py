"""A training of few numbers: the loop, step, runner, checkpoints and log are the real ones; the data is a table, the
model a line through it that is noisy in training, as dropout is, and carries something on from step to step.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqlab.config import Checkpoints, Experiment, Optimizer, Parallel, Schedule, Validation
from seqlab.data.plans import BatchPlan
from seqlab.distributed.devices import make_runner
from seqlab.laws.training import tiny_experiment
from seqlab.runs import checkpoint, manifest
from seqlab.system import digests
from seqlab.system.signals import StopRequest
from seqlab.training.averages import average_of
from seqlab.training.context import TrainingContext
from seqlab.training.optimizer import optimizer_at
from seqlab.training.schedule import make_schedule
from seqlab.training.step import make_step
from seqlab.types import Batch, Context, Frames, Loss, TrainState

EXAMPLES, ROWS, SEED = 37, 8, 5  # five batches an epoch, the last of them of five rows, filled up
VALUES = np.random.default_rng(0).normal(size=(EXAMPLES, 3)).astype(np.float32)
TARGETS = (VALUES @ np.array([1.0, -2.0, 0.5]) + 0.1).astype(np.float32)
STEPS = 9


def experiment(**changes: Any) -> Experiment:
    """Nine steps; the log is written every second, a validation and a checkpoint made every third."""
    base = Experiment(
        **{
            **{name: getattr(tiny_experiment(), name) for name in ("model", "task", "data")},
            "steps": STEPS,
            "seed": SEED,
            "log_every": 2,
            "hash_every": 1,
            "optimizer": Optimizer(average=0.9),
            "schedule": Schedule(peak=0.1, warmup=2),
            "validation": Validation(every=3, beam=0),
            "checkpoints": Checkpoints(last=3),
        }
    )
    return dataclasses.replace(base, **changes)


class Plan:
    left_out, longest = 0, 1

    def batches(self, seed: int, epoch: int | None) -> list[BatchPlan]:
        order = np.random.default_rng([seed, epoch or 0]).permutation(EXAMPLES)
        return [BatchPlan(order[at : at + ROWS], (1,), ROWS) for at in range(0, EXAMPLES, ROWS)]

    def describe(self) -> list[str]:
        return []


def batch_at(step: int, left_out: Any = ()) -> list[int]:
    """[epoch, index] of what a step is fed, counted out one by one."""
    count = len(Plan().batches(SEED, 0))
    places = [[epoch, index] for epoch in range(9) for index in range(count)]
    return [place for place in places if place not in list(left_out)][step - 1]


def collate(batch_plan: BatchPlan, epoch: int = 0) -> Batch:
    """Filled up to the batch's rows, with weight zero."""
    real, count = len(batch_plan.indices), batch_plan.row_count
    values, targets, weights = np.zeros((count, 1, 3)), np.zeros(count), np.zeros(count)
    values[:real, 0], targets[:real], weights[:real] = VALUES[batch_plan.indices], TARGETS[batch_plan.indices], 1
    mask = np.broadcast_to(weights[:, None] > 0, (count, 1))
    values, targets, weights = (x.astype(np.float32) for x in (values, targets, weights))
    return Batch(Frames(values, mask), None, targets, weights)


def spoiled(*places: list[int], value: float = np.nan) -> Callable[[BatchPlan], Batch]:
    """`collate`, but for batches at some (epoch, index) that have a target which is not finite."""
    bad = [Plan().batches(SEED, epoch)[index].indices.tolist() for epoch, index in places]

    def spoil(batch_plan: BatchPlan, epoch: int = 0) -> Batch:
        batch = collate(batch_plan)
        if batch_plan.indices.tolist() in bad:
            batch.targets[len(batch_plan.indices) // 2] = value
        return batch

    return spoil


def loss(params: Any, batch: Any, context: Context) -> Loss:
    x = batch.inputs.values[:, 0]
    carry = jnp.zeros((x.shape[0], 2)) if context.carry is None else context.carry
    noisy = x * jax.random.bernoulli(context.key, 0.9, x.shape)
    errors = noisy @ params["slope"] + params["offset"] + 0.1 * carry.sum(axis=1) - batch.targets
    total = jnp.sum(batch.weights * errors**2)
    return Loss(total, batch.weights.sum(), {}, 0.5 * carry + 0.1 * x[:, :2])


def validate(params: Any) -> dict[str, float]:
    slope, offset = (np.asarray(params[name]) for name in ("slope", "offset"))
    return {"loss": float(np.mean((VALUES[:6] @ slope + offset - TARGETS[:6]) ** 2))}


@functools.cache
def compiled(nonfinite: str) -> Any:
    """The runner and the step, compiled once."""
    config, runner = experiment(), make_runner(Parallel())
    optimizer = optimizer_at(config.optimizer, make_schedule(config.schedule, config.steps))
    skip = nonfinite == "skip"
    return runner, runner.compile(make_step(loss, optimizer, SEED, average=average_of(config.optimizer), skip=skip))


def first_state() -> TrainState:
    config = experiment()
    params = {"slope": np.zeros(3, np.float32), "offset": np.zeros((), np.float32)}
    sums = dict.fromkeys(("loss", "weight", "gradient_norm", "steps"), np.float32(0))
    optimizer = optimizer_at(config.optimizer, make_schedule(config.schedule, config.steps)).init(params)
    return TrainState(np.int32(0), params, optimizer, np.zeros((ROWS, 2), np.float32), sums, params)


def make_context(run: Path, say: Callable[[str], None] = lambda line: None, **changes: Any) -> TrainingContext:
    """Of the miniature's experiment with some fields changed."""
    run.mkdir(exist_ok=True)
    config = experiment(**changes)
    runner, step = compiled(config.nonfinite)
    return TrainingContext(
        config,
        runner,
        shapes=jax.eval_shape(first_state),
        base=None,
        create_state=lambda: runner.place(first_state()),
        train_step=step,
        plan=Plan(),
        collate=collate,
        validate=validate,
        run=run,
        say=say,
        stop_request=StopRequest(),
    )


class End(NamedTuple):
    """All that a run leaves and that does not hang on the clock."""

    state: str
    progress: dict[str, Any]
    log: bytes
    trail: bytes


def end_of(run: Path, step: int = STEPS) -> End:
    """Raises if the checkpoint of that step is not the last, or not whole."""
    assert manifest.checkpoint_steps(run)[-1] == step
    state = digests.digest_of(checkpoint.restore(run, step))
    logs = ((run / name).read_bytes() for name in ("metrics.jsonl", "hashes.jsonl"))
    return End(state, manifest.read_manifest(run, step)["progress"], *logs)
