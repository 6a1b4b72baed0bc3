"""Training of an experiment, from its checks to its last step."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.corpus import Corpus, encode_split
from seqlab.data.plans import Plan
from seqlab.data.records import with_absolute_paths
from seqlab.distributed.devices import Runner, describe_determinism, describe_devices, fill_rows, make_runner
from seqlab.distributed.hosts import check_equal_across_processes, is_process_zero, on_process_zero, wait_for_all
from seqlab.runs import manifest
from seqlab.runs.base import BASE, base_folder, shares_base, with_base
from seqlab.runs.folder import open_run, refuse_other_folder, without_resumable_fields
from seqlab.runs.initialize import load_model, load_parts
from seqlab.runs.parameters import axes_of, init_model_parameters
from seqlab.runs.parametrized import init_experiment_parameters, trained_pattern
from seqlab.runs.pieces import piece_axes
from seqlab.runs.references import load_references, place_references, reference_digests
from seqlab.runs.trainable import split
from seqlab.system.errors import SeqlabError
from seqlab.system.files import check_creatable, locked
from seqlab.system.signals import StopRequest, listen_for_stop
from seqlab.training.checks import check_examples, check_experiment
from seqlab.training.context import TrainingContext
from seqlab.training.counting import run_counting
from seqlab.training.prepare import PreparedExperiment, plan_batches, prepare_experiment
from seqlab.training.recovery import run_training
from seqlab.training.state import initial_state, training_step
from seqlab.training.validation import make_validation
from seqlab.types import Counted, Reference, TrainState


def print_line(line: str) -> None:
    """Prints and flushes a line. A full disk or a closed pipe does not end training."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def train(
    experiment: Experiment,
    run: Path,
    data_dir: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
    base: Path | None = None,
    say: Callable[[str], None] = print_line,
    command: str | None = None,
) -> None:
    """Trains an experiment in the folder `run`. Resumes the run if it exists.

    A new run starts from the parameters of the run `init_from` and uses the SentencePiece model in the file
    `tokenizer`, if they are given, and records the `command` that started it. Paths in the experiment are relative to
    `base`, or to the run if `base` is None. Raises `SeqlabError` if the experiment cannot run, if the run belongs to
    another experiment, and if a loss is not finite; `Stopped` after a stop request, once the state is saved.
    """
    with listen_for_stop() as stop_request:
        check_experiment(experiment)
        if init_from is not None and isinstance(experiment.model, Counted):
            raise SeqlabError(f"{type(experiment.model).__name__} is counted: leave out --init-from")
        refuse_other_folder(run)
        check_creatable(data_dir)
        experiment = dataclasses.replace(experiment, data=with_absolute_paths(experiment.data))
        experiment = with_base(experiment, init_from, base or run)
        if shares_base(experiment):
            init_from = base_folder(experiment, base or run)
        prepared = prepare_experiment(experiment, data_dir, run, init_from, tokenizer, say)
        check_processes_agree(prepared)
        examples = prepared.experiment.validation.examples
        validation_corpus = encode_split(prepared.data, "validation", prepared.codecs, data_dir, examples)
        for split, corpus in (("train", prepared.corpus), ("validation", validation_corpus)):
            check_examples(prepared.experiment.task, split, corpus, prepared.codecs)
        plan = plan_batches(prepared.experiment, prepared.corpus, say)
        references = load_references(prepared.experiment, run, prepared.codecs, base)
        record = {**prepared.data.hashes, **reference_digests(references)}
        load_initial = functools.partial(load_initial_parameters, prepared, init_from, base or run, say)
        context = make_context(prepared, plan, validation_corpus, run, load_initial, references, say, stop_request)
        with lock_run(run):
            steps = on_process_zero(lambda: open_run(prepared.experiment, prepared.codecs, record, run, command))
            if steps < experiment.steps:
                say(f"{run} is extended from {steps} to {experiment.steps} steps")
                if experiment.schedule.name in ("cosine", "linear"):
                    say("the learning rate depends on the number of steps, and differs from that of a single run")
            if isinstance(prepared.experiment.model, Counted):
                run_counting(context)
            else:
                run_training(context)
            wait_for_all()


def check_processes_agree(prepared: PreparedExperiment) -> None:
    """Raises `SeqlabError` if the processes do not have the same experiment, data and codecs."""
    experiment = prepared.experiment
    fields = catalogue.to_json(without_resumable_fields(experiment)) | {"data": None}
    limits = [experiment.steps, experiment.validation.patience]
    check_equal_across_processes("experiment", json.dumps([fields, limits]).encode())
    check_equal_across_processes("data", json.dumps(prepared.data.hashes).encode())
    digests = [tokenizer.digest for tokenizer in prepared.codecs.values()]
    check_equal_across_processes("codecs", "".join(digests).encode())


def make_context(
    prepared: PreparedExperiment,
    plan: Plan,
    validation_corpus: Corpus,
    run: Path,
    load_initial: Callable[[], dict[str, Any]],
    references: dict[str, Reference],
    say: Callable[[str], None],
    stop_request: StopRequest,
) -> TrainingContext:
    """Returns the context of the training loop, and reports the size of the model.

    `validation_corpus` is the validation split. `load_initial` returns, by path, the parameters that are
    initialized from other runs. Raises `SeqlabError` if no example can be validated; `Stopped`
    after a stop request.
    """
    experiment, data, codecs, _ = prepared
    references = dict(references)
    base = references.pop(BASE).params if shares_base(experiment) else None  # not a reference of the loss
    runner = make_runner(experiment.parallel, experiment.accumulate, axes_of(experiment.model))
    first_batch = fill_rows(prepared.collate(plan.batches(experiment.seed, 0)[0], 0), runner.parts)
    make_state = functools.partial(initial_state, experiment, first_batch, references)
    shapes = jax.eval_shape(make_state)
    trained_shapes, _ = split(shapes.params, trained_pattern(experiment))
    count, trained = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (shapes.params, trained_shapes))
    part = "" if trained == count else f" ({trained:,} are trained)"
    say(f"{count:,} parameters{part}, {describe_devices(experiment.parallel)}")
    say(describe_determinism())
    initial = {} if manifest.checkpoint_steps(run) else load_initial()
    compiled_step = runner.compile(training_step(experiment, runner.axis))
    placed = place_references(references, runner.place)
    stop_request.raise_if_requested()  # Python may have dropped the exception of an earlier signal
    return TrainingContext(
        experiment,
        runner,
        shapes=shapes,
        base=base,
        create_state=functools.partial(create_state, runner, make_state, experiment, initial),
        train_step=lambda state, batch: compiled_step(state, batch, placed),
        plan=plan,
        collate=prepared.collate,
        validate=make_validation(experiment, data, codecs, validation_corpus, references),
        run=run,
        say=say,
        stop_request=stop_request,
    )


def load_initial_parameters(
    prepared: PreparedExperiment, init_from: Path | None, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Returns, by path, the parameters that a new run takes from other runs: those of `init_from`, and the parts in
    `experiment.initialize`, whose run paths are relative to `folder`. Raises `SeqlabError` if shapes differ.
    """
    experiment, initial = prepared.experiment, {}
    if init_from is not None:
        initial: dict[str, Any] = load_model(init_from, experiment, prepared.codecs, say)
    if experiment.initialize:
        leaves: dict[str, Any] = flatten_dict(init_model_parameters(experiment.model, experiment.seed), sep="/")  # pyright: ignore[reportAssignmentType]
        params = unflatten_dict(leaves | initial, sep="/")
        parts = tuple(f"params/{part}/" if part else "params/" for part, _, _ in experiment.initialize)
        shapes = {path.removeprefix("params/"): leaf.shape for path, leaf in leaves.items() if path.startswith(parts)}
        pieces = piece_axes(experiment.model, prepared.codecs, shapes)
        initial |= load_parts(experiment.initialize, folder, params, say, initial, pieces)
    return initial


def create_state(
    runner: Runner, make_state: Callable[[], TrainState], experiment: Experiment, initial: dict[str, Any]
) -> TrainState:
    """Returns the state at step 0, on the devices. `initial` replaces parameters of the model, by path, before its
    parametrization is initialized.
    """
    state = runner.create(make_state)
    if not initial:
        return state
    params = init_experiment_parameters(experiment, initial)
    # Copies, because a step donates the buffers of the state, and no two leaves may share a buffer.
    average = None if state.average is None else runner.place(jax.tree.map(np.array, params))
    return dataclasses.replace(state, params=runner.place(jax.tree.map(np.array, params)), average=average)


def lock_run(run: Path) -> contextlib.AbstractContextManager[None]:
    """Locks the folder of a run, in process 0. Raises `SeqlabError` if another process is training it."""
    if not is_process_zero():
        return contextlib.nullcontext()
    return locked(run / ".lock", f"another process is training {run}")
