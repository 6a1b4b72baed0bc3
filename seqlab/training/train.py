"""Training: from an experiment to the loop, everything checked first and made once."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import jax

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.corpus import tokenize_split
from seqlab.data.task import make_batch
from seqlab.distributed.devices import described, exactness, fill_rows, make_runner
from seqlab.distributed.hosts import check_alike, is_process_zero, on_process_zero, wait_for_all
from seqlab.runs import manifest
from seqlab.runs.folder import open_run, refuse_other_folder, without_resumable_fields
from seqlab.runs.parameters import load_params
from seqlab.system.files import locked
from seqlab.system.signals import wish_to_stop
from seqlab.training.checks import check
from seqlab.training.context import TrainingContext
from seqlab.training.prepare import plan_batches, read_data
from seqlab.training.recovery import run_steps
from seqlab.training.state import initial_state, training_step
from seqlab.training.validation import make_validation
from seqlab.types import TrainState


def tell(line: str) -> None:
    """To standard output, at once. A full disk there, or a reader that has gone, ends no training."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def train(
    experiment: Experiment,
    run: Path,
    data_dir: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
    say: Callable[[str], None] = tell,
    command: str | None = None,
) -> None:
    """Trains into the folder `run`; called again with the same arguments it goes on where it was. A new run keeps the
    `command` that began it.

    Raises `SeqlabError` for an experiment that cannot run, a run of another experiment, a loss that is not finite;
    `Stopped` where a signal asks for the end, which is first saved.
    """
    with wish_to_stop() as wish:
        check(experiment)
        refuse_other_folder(run)
        experiment, data, tokenizers, corpus = read_data(experiment, data_dir, run, init_from, tokenizer, say)
        plain = catalogue.to_json(without_resumable_fields(experiment))
        check_alike("experiment", json.dumps({**plain, "data": None}).encode())
        check_alike("data", json.dumps(data.hashes).encode())
        check_alike("tokenizers", "".join(one.digest for one in tokenizers.values()).encode())
        held_out = tokenize_split(data, "validation", tokenizers, data_dir, experiment.validation.examples)
        plan = plan_batches(experiment, corpus, say)
        collate = functools.partial(make_batch, experiment.task, corpus, tokenizers)

        runner = make_runner(experiment.parallel, experiment.accumulate)
        first = fill_rows(collate(plan.batches(experiment.seed, 0)[0]), runner.parts)
        make = functools.partial(initial_state, experiment, first)
        shapes = jax.eval_shape(make)
        params = shapes.params
        say(f"{sum(x.size for x in jax.tree.leaves(params)):,} parameters, {described(experiment.parallel)}")
        say(exactness())
        begun = bool(manifest.checkpoint_steps(run))
        given = None if init_from is None or begun else load_params(init_from, params)

        def create() -> TrainState:
            state = runner.create(make)
            if given is None:
                return state
            average = None if state.average is None else runner.place(given)
            return dataclasses.replace(state, params=runner.place(given), average=average)

        wish.end_if_asked()  # where what a signal raised was kept from coming through
        work = TrainingContext(
            experiment,
            runner,
            shapes=shapes,
            create=create,
            step=runner.compile(training_step(experiment, runner.axis)),
            plan=plan,
            collate=collate,
            validate=make_validation(experiment, data, tokenizers, held_out),
            run=run,
            say=say,
            wish=wish,
        )
        with (
            locked(run / ".lock", f"another process is training {run}")
            if is_process_zero()
            else contextlib.nullcontext()
        ):
            on_process_zero(lambda: open_run(experiment, tokenizers, data, run, command))
            run_steps(work)
            wait_for_all()
