"""The training process that `scripts/torture.py` kills: `seqlab` with a record of its current phases.

    python scripts/torture_victim.py MARKS PLANT ARGUMENT ...

MARKS is the file of the record. PLANT is the name of a bug to plant, or an empty string. The arguments are passed to
`seqlab`.
"""

import dataclasses
import functools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torture_experiments import STEPS

PHASES = ("data preparation", "tokenizer training", "step", "save", "evaluation")
LENGTHS = 64  # the number of last durations that are recorded for each phase
SPOILED = (0, 7)  # the epoch and the index of the batch that is not finite


def read_marks(path: Path) -> np.ndarray:
    """Returns the record of a process, int64 [phases, 2 + LENGTHS], which is shared with the process.

    Each row has the number of times that the phase was entered and left, and its durations in nanoseconds.
    """
    return np.memmap(path, np.int64, "r+", shape=(len(PHASES), 2 + LENGTHS))


def make_marks(path: Path) -> None:
    """Creates an empty record."""
    path.write_bytes(bytes(8 * len(PHASES) * (2 + LENGTHS)))


def lengths_of(marks: np.ndarray, phase: str) -> list[int]:
    """Returns the recorded durations of a phase, in nanoseconds."""
    row = marks[PHASES.index(phase)]
    return row[2 : 2 + min(row[1], LENGTHS)].tolist()


def phases_under_way(marks: np.ndarray) -> list[str]:
    """Returns the phases that were entered but not left."""
    return [phase for phase, row in zip(PHASES, marks, strict=True) if row[0] > row[1]]


class PhaseRecorder:
    """Records the phases of this process in an array that `read_marks` returns."""

    def __init__(self, marks: np.ndarray):
        self.marks = marks
        self.started: dict[str, deque[int]] = {phase: deque() for phase in PHASES}

    def enter(self, phase: str) -> None:
        """Records the beginning of a phase."""
        self.started[phase].append(time.monotonic_ns())
        self.marks[PHASES.index(phase), 0] += 1

    def leave(self, phase: str) -> None:
        """Records the end of a phase."""
        row = self.marks[PHASES.index(phase)]
        row[2 + row[1] % LENGTHS] = time.monotonic_ns() - self.started[phase].popleft()
        row[1] += 1

    def leave_step(self) -> None:
        """Records the end of the current step, if any: a step lasts until the next step or evaluation begins."""
        if self.started["step"]:
            self.leave("step")

    def wrap(self, function: Callable[..., Any], phase: str, enters: bool = True, leaves: bool = True) -> Any:
        """Returns a function whose calls are recorded as a phase, or only as its beginning or end."""

        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            if enters:
                self.enter(phase)
            try:
                return function(*args, **options)
            finally:
                if leaves:
                    self.leave(phase)

        return run


def record_phases(recorder: PhaseRecorder) -> None:
    """Replaces functions of the training code by functions that record their phases."""
    from seqlab.runs import saving
    from seqlab.training import prepare, train

    train.make_runner = recorded_runner(recorder, train.make_runner)
    train.make_validation = recorded_validation(recorder, train.make_validation)
    prepare.prepare = recorder.wrap(prepare.prepare, "data preparation")
    prepare.fit_codec = recorder.wrap(prepare.fit_codec, "tokenizer training")
    prepare.encode_split = recorder.wrap(prepare.encode_split, "tokenizer training")
    for request, work in (("save", "_finish"), ("amend", "_amend")):  # one thread requests, another writes
        setattr(saving.Saver, request, recorder.wrap(getattr(saving.Saver, request), "save", leaves=False))
        setattr(saving.Saver, work, recorder.wrap(getattr(saving.Saver, work), "save", enters=False))


def recorded_runner(recorder: PhaseRecorder, make_runner: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a `make_runner` whose runners record their steps."""

    def make(*args: Any) -> Any:
        runner = make_runner(*args)

        def compile_step(step: Callable[..., Any]) -> Callable[..., Any]:
            compiled = runner.compile(step)

            def run(*arguments: Any) -> Any:
                recorder.leave_step()
                recorder.enter("step")
                return compiled(*arguments)

            return run

        return runner._replace(compile=compile_step)

    return make


def recorded_validation(recorder: PhaseRecorder, make_validation: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a `make_validation` whose validations are recorded."""

    def make(*args: Any) -> Callable[..., Any]:
        validate = recorder.wrap(make_validation(*args), "evaluation")

        def run(params: Any) -> Any:
            recorder.leave_step()
            return validate(params)

        return run

    return make


def forget_the_cursor() -> None:
    """Plants a bug: a resumed run restarts its epoch."""
    from seqlab.training import loop

    newest_progress = loop.newest_progress

    def forgetful(*args: Any) -> Any:
        step, progress = newest_progress(*args)
        return step, dataclasses.replace(progress, index=0)

    loop.newest_progress = forgetful


def keep_the_log() -> None:
    """Plants a bug: a resumed run keeps the log lines after its checkpoint."""
    from seqlab.training import outputs

    logbook = outputs.Logbook
    outputs.Logbook = lambda run, step, *args, **options: logbook(run, step + STEPS, *args, **options)


def spoil_a_batch() -> None:
    """Plants a fault: the weights of one batch are NaN."""
    from seqlab.training import loop

    stream = loop.stream_own_batches

    def spoiled(*args: Any) -> Iterator[Any]:
        for epoch, index, batch in stream(*args):
            is_bad = (epoch, index - 1) == SPOILED
            yield epoch, index, batch.replace(weights=batch.weights * np.float32("nan")) if is_bad else batch

    loop.stream_own_batches = spoiled


BUGS = {"cursor": forget_the_cursor, "log": keep_the_log}  # torture must find them
PLANTS = {"": lambda: None, **BUGS, "nan": spoil_a_batch}


def main(arguments: Sequence[str]) -> None:
    """Runs `seqlab` with a record of its phases and a planted bug."""
    from seqlab.cli import main as command

    marks, plant, *rest = arguments
    record_phases(PhaseRecorder(read_marks(Path(marks))))
    PLANTS[plant]()
    sys.argv = ["seqlab", *rest]
    command.main()


if __name__ == "__main__":
    main(sys.argv[1:])
