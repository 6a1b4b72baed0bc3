"""The loop itself: from a run's last checkpoint, or its beginning, to its last step.

Nothing is read from the device in the step that computes it: what a step tells is looked at one step late.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqlab import checkpoint
from seqlab.batching import Plan, Rows
from seqlab.config import Experiment
from seqlab.errors import SeqlabError, Stopped
from seqlab.hosts import by_the_first, is_first
from seqlab.logbook import Logbook, draw_curves
from seqlab.optim import make_schedule
from seqlab.parallel import Runner, asked_of_any, collate_own, fit_rows
from seqlab.progress import progress
from seqlab.signals import Wish
from seqlab.step import TrainState
from seqlab.trail import Trail
from seqlab.types import Params
from seqlab.untrusted import fits
from seqlab.validate import perplexity

LOWER_IS_BETTER = ("loss", "ter", "mse")
MOST_IN_A_ROW = 20  # updates left out, or rollbacks to one checkpoint, before a run is given up
PAUSES = (1, 5, 25)  # seconds between tries to save the last state
BEGINNING = {
    "epoch": 0,
    "index": 0,
    "left_out": [],
    "best": None,
    "best_step": None,
    "waited": 0,
    "judged": True,
    "stopped": False,
}
"""Where a run is: the next batch, those that were passed over, the best validation; whether the last state has been
judged by one, and whether that was enough."""


POSITION: dict[str, Any] = {
    "epoch": int,
    "index": int,
    "left_out": list[list[int]],
    "best": float | None,
    "best_step": int | None,
    "waited": int,
    "judged": bool,
    "stopped": bool,
}


class Work(NamedTuple):
    """What the loop works on and with."""

    experiment: Experiment
    runner: Runner
    shapes: TrainState
    """Of step 0, for all devices."""
    create: Callable[[], TrainState]
    """Step 0, on the devices."""
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    plan: Plan
    collate: Callable[[Rows], Any]
    validate: Callable[[Params], dict[str, float]]
    run: Path
    say: Callable[[str], None]
    wish: Wish


class NotFinite(Exception):
    """A loss or gradient of `step`."""

    def __init__(self, step: int, epoch: int, index: int):
        self.step, self.batch = step, [epoch, index]


def run_steps(work: Work) -> None:
    """Raises `SeqlabError` for a loss that is not finite, as `Experiment.nonfinite` says, and for a last state that
    cannot be saved; `Stopped`, all saved, where a signal asks for the end.
    """
    left_out: list[list[int]] = []
    times, where = 0, 0
    while True:
        try:
            return go_on(work, left_out)
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise SeqlabError(
                f"another process has gone, it seems: {reason}; the same command on all goes on where the last "
                "checkpoint is"
            ) from error
        except NotFinite as bad:
            last = by_the_first(lambda: max(checkpoint.checkpoint_steps(work.run), default=0))
            times, where = (times + 1 if last == where else 1), last
            if work.experiment.nonfinite != "rollback" or times > MOST_IN_A_ROW:
                good = f"the last good checkpoint is of step {last}" if last else "there is no checkpoint yet"
                if work.experiment.nonfinite == "stop":
                    also = "; or --nonfinite skip or rollback"
                else:
                    also = f". It was given up after {MOST_IN_A_ROW} in a row"
                raise SeqlabError(
                    f"the loss or gradient of step {bad.step} is not finite ({place(work, *bad.batch)}); {good}. "
                    f"{advice(work.run, last)}{also}"
                ) from None
            left_out.append(bad.batch)
            epoch, index = bad.batch
            work.say(
                f"THE LOSS OR GRADIENT OF STEP {bad.step} IS NOT FINITE: ROLLED BACK to step {last}, to go on "
                f"without that batch (seqlab show-batch {work.run} --batch {epoch}/{index})"
            )


def advice(run: Path, checkpoint: int | None) -> str:
    """What to do about what is not finite, where there is a good checkpoint or none."""
    start = f", with --init-from {run}" if checkpoint else ""
    return f"Try a lower schedule.peak, a longer warm-up, or clipping, in a new run{start}"


def place(work: Work, epoch: int, index: int) -> str:
    return f"epoch {epoch}, batch {index}; seqlab show-batch {work.run} --batch {epoch}/{index}"


def go_on(work: Work, left_out: list[list[int]]) -> None:
    """One attempt, without some batches."""
    experiment, runner, run, say, wish = work.experiment, work.runner, work.run, work.say, work.wish
    start, position = choose(work)
    if position["judged"] and (start >= experiment.steps or position["stopped"]):
        say(f"{run} is trained: {start} steps")
        return
    if start:
        say(f"resuming from step {start}")
    state = state_of(work, start) if start else work.create()
    more = [batch for batch in left_out if batch not in position["left_out"]]
    position = {**position, "left_out": [*position["left_out"], *more]}

    zeros = {name: np.float32(0) for name in state.sums}
    rate = make_schedule(experiment.schedule, experiment.steps)
    several = jax.process_count() > 1
    unchecked: Any = None  # what the step before tells
    unlogged: Any = None
    skipped = 0
    counted = float(runner.fetch(state.sums)["weight"]) if start else 0.0  # tokens of the stretch, before
    clock, waiting, padding = time.perf_counter(), 0.0, [0.0, 0.0]

    def settle() -> bool:
        """Looks at what the last step and the last stretch of the log told, now that they are computed. Whether
        another process has been asked to stop.
        """
        nonlocal unchecked, unlogged, skipped, counted, clock, waiting, padding
        asked = False
        if unchecked is not None:
            at, epoch, index, finite, asked = unchecked
            unchecked = None
            if not bool(finite):
                skipped += 1
                if experiment.nonfinite != "skip" or skipped > MOST_IN_A_ROW:
                    raise NotFinite(at, epoch, index)
                where = place(work, epoch, index)
                say(f"THE LOSS OR GRADIENT OF STEP {at} IS NOT FINITE: ITS UPDATE IS LEFT OUT ({where})")
            else:
                skipped = 0
        if unlogged is not None:
            at, sums = unlogged
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            values = training_metrics(sums) | {"learning rate": float(rate(at - 1))}
            shares = {"padding": padding[0] / max(padding[1], 1.0), "input wait": waiting / seconds}
            speed = (float(sums["weight"]) - counted) / seconds
            unlogged, counted, waiting, padding = None, 0.0, 0.0, [0.0, 0.0]
            if log is not None:
                log.write(at, values, **{"tokens per second": speed}, **shares)
            shown = [f"loss {values['loss']:.3f}"] if "loss" in values else []
            shown += [f"{share:.0%} {name}" for name, share in shares.items()]
            advance(0, ", ".join(shown))
        return bool(asked)

    def save(step: int, judged: bool) -> None:
        position["judged"] = judged
        saver.save(checkpoint.saved_tree(runner.saved(state)), step, position)

    def judge(step: int) -> None:
        """Validates, and notes what came of it; among several processes no signal cuts it short."""
        nonlocal clock
        begun = time.perf_counter()
        with wish.patience(several):
            values = work.validate(runner.fetch(state.params if state.average is None else state.average))
        if not np.isfinite(values["loss"]):
            raise SeqlabError(
                f"{run}: the validation loss of step {step} is not finite, though those of training are: its "
                f"checkpoint is of no use. {advice(run, position['best_step'])}"
            )
        if log is not None:
            log.write(step, {f"validation {name}": value for name, value in values.items()})
            with contextlib.suppress(OSError):  # a full disk has been told of
                draw_curves(run)
        say(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        note(position, experiment, step, values)
        position["judged"] = True
        saver.amend(step, position)
        clock += time.perf_counter() - begun

    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress("training", experiment.steps, start))
        log = trail = None
        if is_first():
            log = Logbook(run, start, experiment.log_every, say, judged=position["judged"])
            stack.callback(log.close)
            if experiment.hash_every:
                trail = Trail(run, start)
                stack.callback(trail.close)
        saver = checkpoint.Saver(run, experiment.checkpoints.last, say)
        stack.callback(saver.close)
        stack.enter_context(wish.patience())
        stream = batch_stream(work, position)
        step = start
        if not position["judged"]:
            judge(step)
        while step < experiment.steps and not position["stopped"]:
            begun = time.perf_counter()
            position["epoch"], position["index"], batch = next(stream)
            waiting += time.perf_counter() - begun
            count_padding(batch, padding)
            step += 1
            state, told = work.step(state, runner.feed(batch))
            ending = settle() or (wish.asked and not several)
            asked = asked_of_any(wish.asked) if several else False
            unchecked = step, position["epoch"], position["index"] - 1, runner.fetch(told)["finite"], asked
            if step % experiment.log_every == 0:
                unlogged = step, runner.fetch(state.sums)
                state = dataclasses.replace(state, sums=runner.place(zeros))
            if experiment.hash_every and step % experiment.hash_every == 0:
                rows = work.plan.batches(experiment.seed, position["epoch"])[position["index"] - 1]
                whole = runner.fetch(state)
                if trail is not None:
                    trail.write(step, work.collate(rows), whole)
            advance()
            if step % experiment.validation.every == 0 or step == experiment.steps:
                settle()
                save(step, judged=False)
                judge(step)
                if position["stopped"]:
                    say(f"stopping early: {position['waited']} validations without a better one")
            elif ending or (saver.owed and step % experiment.log_every == 0):
                settle()
                save(step, judged=True)
            if ending and step < experiment.steps and not position["stopped"]:
                saver.wait()
                where = "could not be saved" if saver.owed else "is saved"
                raise Stopped(f"stopped at step {step}, which {where}: the same command goes on", agreed=True)
        saver.wait()
        for pause in PAUSES:
            if saver.owed:
                time.sleep(pause)
                save(step, judged=True)
                saver.wait()
        if saver.owed:
            raise SeqlabError(
                f"{run}: the state of step {step} could not be saved: make room; the same command goes on"
            )


def choose(work: Work) -> tuple[int, dict[str, Any]]:
    """The step and position of the run's newest whole checkpoint, or of its beginning."""

    def chosen() -> tuple[int, dict[str, Any]]:
        step = checkpoint.newest_whole(work.run, work.say)
        return (0, BEGINNING) if step is None else (step, checkpoint.read_manifest(work.run, step)["progress"])

    step, position = by_the_first(chosen)
    if "epoch" not in position:
        kind = "averaged" if "averaged" in position else "imported"
        raise SeqlabError(
            f"{work.run} holds {kind} parameters, which do not train on: start from it with --init-from"
        )
    if not all(fits(position.get(name), kind) for name, kind in POSITION.items()):
        raise SeqlabError(
            f"{work.run}: checkpoint {step} does not tell where the run was: it is of another version of seqlab; "
            "start from it with --init-from"
        )
    return step, position


def state_of(work: Work, step: int) -> TrainState:
    """The state of a checkpoint, straight onto the devices. Its carry may have been of other numbers of devices."""
    like = work.runner.like(work.shapes)
    saved = checkpoint.load_tree(work.run, step, checkpoint.saved_tree(like))
    carry = jax.tree.map(lambda x, own: fit_rows(np.asarray(x), len(own)), saved.get("carry"), like.carry)
    return work.runner.place(TrainState(**{**saved, "carry": carry}))


def batch_stream(work: Work, position: dict[str, Any]) -> Iterator[tuple[int, int, Any]]:
    """This process's rows of the batches from a position on, for ever, each with the cursor of the next one; made
    ahead by threads.
    """
    epoch, index, left_out = position["epoch"], position["index"], position["left_out"]
    own = collate_own(work.runner, work.collate)
    for found in stream_of(work.plan, work.experiment.seed, own, epoch, index):
        if [found[0], found[1] - 1] not in left_out:
            yield found


def stream_of(
    plan: Plan, seed: int, collate: Callable[[Rows], Any], epoch: int, index: int
) -> Iterator[tuple[int, int, Any]]:
    """Batches from the cursor on, for ever, each with the cursor of the next one."""
    import grain

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    while True:
        rows = grain.MapDataset.source(plan.batches(seed, epoch))
        try:
            for batch in rows.slice(slice(index, None)).map(collate).to_iter_dataset(ahead):
                index += 1
                yield epoch, index, batch
        except SeqlabError as error:  # Grain adds lines of its own
            raise SeqlabError(str(error).partition("\n")[0]) from None
        epoch, index = epoch + 1, 0


def count_padding(batch: Any, counted: list[float]) -> None:
    """Adds the pads and the positions of a batch's inputs and prefix."""
    for tokens in (batch.inputs, batch.prefix):
        if tokens is not None:
            counted[0] += tokens.mask.size - np.count_nonzero(tokens.mask)
            counted[1] += tokens.mask.size


def training_metrics(sums: dict[str, jax.Array]) -> dict[str, float]:
    s = {name: float(value) for name, value in sums.items()}
    weight = max(s["weight"], 1.0)
    if not s["steps"]:  # all updates were left out
        return {}
    values = {"loss": s["loss"] / weight}
    if "nll" in s:  # without label smoothing, to stand beside the validation loss
        values = {"loss": s["nll"] / weight, "perplexity": perplexity(s["nll"] / weight)}
    return {**values, "gradient norm": s["gradient_norm"] / s["steps"]}


def note(position: dict[str, Any], experiment: Experiment, step: int, values: dict[str, float]) -> None:
    """Writes into `position` whether this step is the best, and whether to stop."""
    value = values[experiment.validation.metric]
    sign = -1 if experiment.validation.metric in LOWER_IS_BETTER else 1
    if position["best"] is None or sign * value > sign * position["best"]:
        position.update(best=value, best_step=step, waited=0)
    else:
        position["waited"] += 1
    position["stopped"] = 0 < experiment.validation.patience <= position["waited"]
