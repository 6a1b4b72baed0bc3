"""Checks before training that involve several parts of an experiment, its data or the devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from seqlab import catalogue
from seqlab.codecs.codec import Codecs
from seqlab.config import Experiment
from seqlab.data.batches import damage_explained
from seqlab.data.corpus import Corpus
from seqlab.data.plans import Plan
from seqlab.data.records import PreparedData
from seqlab.data.task import Task
from seqlab.decoding.settings import validation_search
from seqlab.distributed.devices import check_devices
from seqlab.layers.nesting import readers_of
from seqlab.runs.parameters import init_model_parameters
from seqlab.system.errors import SeqlabError
from seqlab.types import Counted, Frames, Model, Pixels, Tokens


def check_longest(model: Model, plan: Plan) -> None:
    """Raises `SeqlabError` if a batch is longer than the model supports."""
    if model.longest is not None and plan.longest > model.longest:
        raise SeqlabError(
            f"the longest batch has {plan.longest} positions, but the model supports at most {model.longest}: raise "
            f"model.max_length, or set batching.max_length to {model.longest}"
        )


def check_experiment(experiment: Experiment) -> None:
    """Raises `SeqlabError`, before any work is done, if the parts do not fit together or do not fit the devices. The
    fields of a part are checked where they are defined.
    """
    catalogue.check_parts(experiment)
    check_devices(experiment.parallel)
    task, model = experiment.task, experiment.model
    names = ("loss", *task.metrics)
    if experiment.validation.metric not in names:
        raise SeqlabError(
            f"validation.metric {experiment.validation.metric!r} is not a metric of this task "
            f"({', '.join(names)}): choose one of these, or add it to task.metrics"
        )
    if task.metrics and not task.predicts:
        raise SeqlabError(f"{type(task).__name__} has metrics but predicts nothing: define requests or predict")
    if isinstance(model, Counted) and (experiment.parametrization or experiment.initialize):
        raise SeqlabError(f"{type(model).__name__} is estimated by counting: remove parametrization and initialize")
    if task.whole_batch and (experiment.accumulate > 1 or experiment.parallel.name == "pmap"):
        raise SeqlabError(
            f"the loss of {type(task).__name__} depends on the whole batch: set accumulate to 1 and "
            "parallel.name to jit"
        )
    validation_search(experiment)
    model = catalogue.with_expected_sizes(experiment).model
    for path, reader in readers_of(model).items():
        check_reader(reader, f"model.{path}")
    try:
        jax.eval_shape(lambda: init_model_parameters(model, experiment.seed))
    except SeqlabError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise SeqlabError(f"this model cannot be built ({error}): check the sizes of the model") from None


def check_reader(reader: Any, place: str) -> None:
    """Raises `SeqlabError` for a reader whose `blank` or `read` returns other types or shapes than `Reader` says."""
    name = f"{place}: {type(reader).__name__}"
    blank = reader.blank(2, 3)
    if not isinstance(blank, Tokens | Frames | Pixels):
        raise SeqlabError(f"{name}.blank must return Tokens, Frames or Pixels, not {type(blank).__name__}")
    read = functools.partial(reader.init_with_output, method="read")
    result = jax.eval_shape(lambda key, inputs: read(key, inputs, 8)[0], jax.random.key(0), blank)
    if not isinstance(result, tuple) or len(result) != 2:
        raise SeqlabError(f"{name}.read must return vectors [B P D] and a mask [B P]")
    vectors, mask = result
    if len(vectors.shape) != 3 or not jnp.issubdtype(vectors.dtype, jnp.floating):
        kind = f"{vectors.dtype} {vectors.shape}"
        raise SeqlabError(f"{name}.read must return floating-point vectors [B P D], not {kind}")
    if mask.shape != vectors.shape[:2] or mask.dtype != bool:
        raise SeqlabError(f"{name}.read must return a mask of bool [B P], not {mask.dtype} {mask.shape}")


def check_columns(experiment: Experiment, data: PreparedData) -> None:
    """Raises `SeqlabError` if the data lacks a column of the task, or that of the difficulty of examples."""
    smallest = min(data.counts, key=lambda split: data.counts[split])  # the fastest to open
    first = next(data.read(smallest, 0, 1))
    difficulty = experiment.batching.difficulty
    users = dict.fromkeys(experiment.task.columns, type(experiment.task).__name__)
    for name, user in (({difficulty: "batching.difficulty"} if difficulty else {}) | users).items():
        if name not in first:
            columns = ", ".join(map(repr, first))
            raise SeqlabError(f"{user} needs the column {name!r}, but the columns of the data are: {columns}")


def check_examples(task: Task, split: str, corpus: Corpus, codecs: Codecs) -> None:
    """Raises `SeqlabError` if examples of a split are malformed. Names the first one and their number."""
    with damage_explained(task, corpus):
        messages = iter(task.malformed_examples(corpus, codecs))
        first, further = next(messages, None), sum(1 for _ in messages)
    if first is not None:
        total = f"; {further + 1:,} examples of this split are malformed" if further else ""
        raise SeqlabError(f"split {split}: {first}{total}")


def check_kernel(model: Model, plan: Plan) -> None:
    """Raises `SeqlabError` if the widest kernel of the model is wider than the longest batch."""
    if model.widest_kernel > plan.longest:
        raise SeqlabError(
            f"a kernel of {model.widest_kernel} positions is wider than the longest batch: "
            f"set model.kernel to at most {plan.longest}"
        )
