"""The training loop: from the latest checkpoint of a run, or from its beginning, to its last step.

The results of a step are read one step later, so that no step waits for the device.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqlab.config import Experiment
from seqlab.distributed.devices import any_process_requests, fit_rows
from seqlab.distributed.hosts import on_process_zero
from seqlab.runs import checkpoint, manifest
from seqlab.runs.base import BRANCHES, complete, own_branches, shares_base
from seqlab.runs.curves import draw_curves
from seqlab.system.errors import SeqlabError, Stopped
from seqlab.training.context import TrainingContext
from seqlab.training.feed import stream_own_batches
from seqlab.training.meter import StretchMeter, training_metrics
from seqlab.training.nonfinite import DelayedCheck, StepResult, nonfinite_advice
from seqlab.training.outputs import Outputs, open_outputs
from seqlab.training.progress import BatchPosition, Progress
from seqlab.training.schedule import make_schedule
from seqlab.types import TrainState

PAUSES = (1, 5, 25)  # seconds before each further attempt to save the last state


def run_attempt(context: TrainingContext, left_out: Sequence[BatchPosition]) -> None:
    """Trains from the latest checkpoint to the last step, without the batches in `left_out`.

    Raises `NonFiniteError` for a loss or gradient that is not finite, unless the experiment skips such updates;
    `Stopped` after a stop request, once the state is saved; `SeqlabError` if the last state cannot be saved.
    """
    experiment = context.experiment
    start, progress = newest_progress(context)
    if progress.judged and start >= experiment.steps:
        context.say(f"{context.run} is already trained: {start} steps")
        return
    progress = progress.with_patience(experiment.validation.patience)
    if progress.judged and progress.stopped:
        context.say(
            f"{context.run} stopped early at step {start}, since {progress.waited} validation(s) brought no "
            "improvement: raise --validation.patience to continue, or set it to 0"
        )
        return
    if start:
        context.say(f"resuming from step {start}")
    state = restore_state(context, start) if start else context.create_state()
    earlier_tokens = float(context.runner.fetch(state.sums)["weight"]) if start else 0.0
    meter = StretchMeter(earlier_tokens)
    with open_outputs(context, start, progress.judged) as outputs:
        TrainingLoop(
            context,
            outputs,
            meter,
            check=DelayedCheck(context),
            learning_rate=make_schedule(experiment.schedule, experiment.steps),
            step=start,
            state=state,
            progress=progress.without_batches(left_out),
        ).run()


@dataclasses.dataclass
class TrainingLoop:
    """One attempt at training a run, with everything that persists from one step to the next."""

    context: TrainingContext
    outputs: Outputs
    meter: StretchMeter
    """The measurements since the log was last written."""
    check: DelayedCheck
    """The result of the previous step, until it is read."""
    learning_rate: Callable[[Any], jax.Array]
    """The learning rate as a function of the update, counted from 0."""
    step: int
    """The number of steps that have been started."""
    state: TrainState
    """The state after `step` steps. The devices may still be computing it."""
    progress: Progress
    """The progress after `step` steps."""
    unlogged: tuple[int, dict[str, jax.Array]] | None = None
    """The step and the sums of the next log line, until they are read."""

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run."""
        return self.context.experiment

    @property
    def finished(self) -> bool:
        """Whether training is complete."""
        return self.step >= self.experiment.steps or self.progress.stopped

    def run(self) -> None:
        """Trains until the last step, or until early stopping or a stop request ends training."""
        batches = stream_own_batches(self.context, self.progress)
        if not self.progress.judged:
            self.validate()
        while not self.finished:
            with self.meter.wait():
                epoch, index, batch = next(batches)
            self.progress = dataclasses.replace(self.progress, epoch=epoch, index=index)
            self.meter.count_padding(batch)
            stopping = self.run_step(batch)
            self.take_sums()
            self.write_trail()
            self.outputs.advance()
            self.save_if_due(stopping)
            if stopping and not self.finished:
                self.stop()
        self.finish_saving()

    def run_step(self, batch: Any) -> bool:
        """Starts one step and reads the results of the previous step. Returns whether to stop after this step.

        Several processes exchange their stop requests in each step. All of them read the result one step later, and
        therefore stop at the same step.
        """
        runner, stop_request, several = self.context.runner, self.context.stop_request, jax.process_count() > 1
        self.step += 1
        self.state, result = self.context.train_step(self.state, runner.feed(batch))
        stopping = self.read_results() or (stop_request.requested and not several)
        agreed = any_process_requests(stop_request.requested) if several else False
        position = (self.progress.epoch, self.progress.index - 1)
        self.check.submit(StepResult(self.step, position, runner.fetch(result)["finite"], agreed))
        return stopping

    def read_results(self) -> bool:
        """Reads the pending results. Returns whether any process has received a stop request."""
        stop_requested = self.check.read()
        self.write_log()
        return bool(stop_requested)

    def take_sums(self) -> None:
        """Moves the sums of the metrics out of the state if a log line is due."""
        if self.step % self.experiment.log_every == 0:
            runner = self.context.runner
            self.unlogged = self.step, runner.fetch(self.state.sums)
            zeros = {name: np.float32(0) for name in self.state.sums}
            self.state = dataclasses.replace(self.state, sums=runner.place(zeros))

    def write_log(self) -> None:
        """Writes the pending log line, if there is one."""
        if self.unlogged is None:
            return
        (step, sums), self.unlogged = self.unlogged, None
        speed, shares = self.meter.end(sums["weight"])
        values = training_metrics(sums) | {"learning rate": float(self.learning_rate(step - 1))}
        if self.outputs.log is not None:
            self.outputs.log.write(step, values, **{"tokens per second": speed}, **shares)
        notes = [f"loss {values['loss']:.3f}"] if "loss" in values else []
        notes += [f"{share:.0%} {name}" for name, share in shares.items()]
        self.outputs.advance(0, ", ".join(notes))

    def write_trail(self) -> None:
        """Writes the hashes of the batch and the state if a line of the trail is due."""
        context, experiment = self.context, self.experiment
        if experiment.hash_every and self.step % experiment.hash_every == 0:
            batch_plan = context.plan.batches(experiment.seed, self.progress.epoch)[self.progress.index - 1]
            state = context.runner.fetch(self.state)
            if self.outputs.trail is not None:
                self.outputs.trail.write(self.step, context.collate(batch_plan, self.progress.epoch), state)

    def save_if_due(self, stopping: bool) -> None:
        """Saves and validates the state if that is due. Only saves it before a stop, or after a failed save.

        The state is saved before it is validated, so that the same command can repeat an interrupted validation.
        """
        experiment, saver = self.experiment, self.outputs.saver
        if self.step % experiment.validation.every == 0 or self.step == experiment.steps:
            self.read_results()
            self.save(judged=False)
            self.validate()
            if self.progress.stopped:
                self.context.say(f"stopping early: {self.progress.waited} validation(s) brought no improvement")
        elif stopping or (saver.failure and self.step % experiment.log_every == 0):
            self.read_results()
            self.save(judged=True)

    def save(self, judged: bool) -> None:
        """Starts saving the state. `judged` is False if the state is yet to be validated."""
        self.progress = dataclasses.replace(self.progress, judged=judged)
        tree = own_branches(self.experiment, checkpoint.saved_tree(self.context.runner.to_saved(self.state)))
        self.outputs.saver.save(tree, self.step, self.progress.to_json())

    def validate(self) -> None:
        """Validates the state and adds the result to its checkpoint. A single process can be stopped meanwhile."""
        context, step, state = self.context, self.step, self.state
        with self.meter.pause():
            with context.stop_request.deferral(jax.process_count() > 1):
                values = context.validate(
                    context.runner.fetch(state.params if state.average is None else state.average)
                )
            if not np.isfinite(values["loss"]):
                raise SeqlabError(
                    f"{context.run}: the validation loss of step {step} is not finite: the checkpoint of "
                    f"this step cannot be used. {nonfinite_advice(context.run, self.progress.best_step)}"
                )
            if self.outputs.log is not None:
                self.outputs.log.write(step, {f"validation {name}": value for name, value in values.items()})
                with contextlib.suppress(OSError):  # the log has already reported a full disk
                    draw_curves(context.run)
            context.say(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
            self.progress = self.progress.after_validation(self.experiment.validation, step, values)
            self.outputs.saver.amend(step, self.progress.to_json())

    def stop(self) -> None:
        """Waits until the state is saved, and raises `Stopped`."""
        saver = self.outputs.saver
        saver.wait()
        outcome = "could not be saved" if saver.failure else "is saved"
        raise Stopped(f"stopped at step {self.step}, which {outcome}: run the same command to resume", agreed=True)

    def finish_saving(self) -> None:
        """Waits until the last state is saved, with a few retries. Raises `SeqlabError` if every attempt fails."""
        saver = self.outputs.saver
        saver.wait()
        for pause in PAUSES:
            if saver.failure:
                time.sleep(pause)
                self.save(judged=True)
                saver.wait()
        if saver.failure:
            raise SeqlabError(
                f"{self.context.run}: the state of step {self.step} could not be saved: free disk space, and run the "
                "same command to resume"
            )


def newest_progress(context: TrainingContext) -> tuple[int, Progress]:
    """Returns the step and the progress of the latest intact checkpoint, or of a new run if there is no checkpoint.

    Raises `SeqlabError` if the checkpoint has only parameters, or was written by an incompatible version.
    """

    def read() -> tuple[int, dict[str, Any]]:
        step = manifest.newest_whole(context.run, context.say)
        if step is None:
            return 0, Progress().to_json()
        return step, manifest.read_manifest(context.run, step)["progress"]

    step, values = on_process_zero(read)
    return step, Progress.from_json(values, context.run, step)


def restore_state(context: TrainingContext, step: int) -> TrainState:
    """Restores the state of a checkpoint onto the devices.

    Pads or truncates the rows of its carry, since the checkpoint may come from a different number of devices.
    """
    targets = context.runner.restore_targets(context.shapes)
    saved = checkpoint.load_tree(context.run, step, own_branches(context.experiment, checkpoint.saved_tree(targets)))
    if shares_base(context.experiment):
        for name in BRANCHES & saved.keys():
            saved[name] = complete(saved[name], context.base, context.shapes.params)
    carry = jax.tree.map(lambda x, target: fit_rows(np.asarray(x), len(target)), saved.get("carry"), targets.carry)
    return context.runner.place(TrainState(**{**saved, "carry": carry}))
