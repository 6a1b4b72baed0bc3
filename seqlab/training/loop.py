"""The loop itself: from a run's last checkpoint, or its beginning, to its last step.

Nothing is read from the device in the step that computes it: what a step tells is looked at one step late.
"""

import contextlib
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from seqlab.distributed.devices import asked_of_any, fit_rows
from seqlab.distributed.hosts import is_process_zero, on_process_zero
from seqlab.runs import checkpoint, manifest, saving
from seqlab.runs.curves import draw_curves
from seqlab.runs.log import Logbook
from seqlab.runs.trail import Trail
from seqlab.system.errors import SeqlabError, Stopped
from seqlab.system.progress import progress
from seqlab.system.untrusted import fits
from seqlab.training.context import MOST_IN_A_ROW, NotFinite, TrainingContext, advice, place
from seqlab.training.feed import batch_stream, count_padding
from seqlab.training.progress import BEGINNING, POSITION, note
from seqlab.training.schedule import make_schedule
from seqlab.training.validation import perplexity
from seqlab.types import TrainState

PAUSES = (1, 5, 25)  # seconds between tries to save the last state


def go_on(work: TrainingContext, left_out: list[list[int]]) -> None:
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
        if is_process_zero():
            log = Logbook(run, start, experiment.log_every, say, judged=position["judged"])
            stack.callback(log.close)
            if experiment.hash_every:
                trail = Trail(run, start)
                stack.callback(trail.close)
        saver = saving.Saver(run, experiment.checkpoints.last, say)
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


def choose(work: TrainingContext) -> tuple[int, dict[str, Any]]:
    """The step and position of the run's newest whole checkpoint, or of its beginning."""

    def chosen() -> tuple[int, dict[str, Any]]:
        step = manifest.newest_whole(work.run, work.say)
        return (0, BEGINNING) if step is None else (step, manifest.read_manifest(work.run, step)["progress"])

    step, position = on_process_zero(chosen)
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


def state_of(work: TrainingContext, step: int) -> TrainState:
    """The state of a checkpoint, straight onto the devices. Its carry may have been of other numbers of devices."""
    like = work.runner.like(work.shapes)
    saved = checkpoint.load_tree(work.run, step, checkpoint.saved_tree(like))
    carry = jax.tree.map(lambda x, own: fit_rows(np.asarray(x), len(own)), saved.get("carry"), like.carry)
    return work.runner.place(TrainState(**{**saved, "carry": carry}))


def training_metrics(sums: dict[str, jax.Array]) -> dict[str, float]:
    s = {name: float(value) for name, value in sums.items()}
    weight = max(s["weight"], 1.0)
    if not s["steps"]:  # all updates were left out
        return {}
    values = {"loss": s["loss"] / weight}
    if "nll" in s:  # without label smoothing, to stand beside the validation loss
        values = {"loss": s["nll"] / weight, "perplexity": perplexity(s["nll"] / weight)}
    return {**values, "gradient norm": s["gradient_norm"] / s["steps"]}
