"""Validation of parameters on a held-out split: the loss and the scores of decoded texts."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqlab.codecs.codec import Codecs
from seqlab.config import Experiment
from seqlab.data.batches import make_batch
from seqlab.data.corpus import Corpus
from seqlab.data.plans import Plan
from seqlab.data.records import PreparedData
from seqlab.decoding.decoded_split import decode_split
from seqlab.decoding.settings import validation_search
from seqlab.decoding.trained import TrainedModel
from seqlab.distributed.devices import collate_local_rows, make_runner
from seqlab.runs.parametrized import apply_parametrization
from seqlab.runs.references import place_references
from seqlab.search.requests import max_tokens
from seqlab.system.errors import SeqlabError
from seqlab.training.checks import check_longest
from seqlab.training.meter import perplexity
from seqlab.training.online import rollout_key
from seqlab.training.step import zeros_like
from seqlab.types import Context, Params, Reference


def loss_of_split(
    experiment: Experiment, codecs: Codecs, corpus: Corpus, references: dict[str, Reference] | None = None
) -> Callable[[Params], tuple[dict[str, float], int, int]]:
    """Returns a function from parameters to the losses of a split, the number of its tokens or examples, and the
    number of examples that are longer than the model reads and therefore left out. The loss is in nats per token or
    example, without label smoothing, and comes with perplexity and accuracy, in percent; a regressor's loss is a mean
    squared error.
    """
    task = experiment.task
    runner = make_runner()
    plan = plan_all(experiment, corpus)
    check_longest(experiment.model, plan)
    batches = plan.batches(0, None)
    if not batches:
        raise SeqlabError("every held-out example is longer than the model reads: raise model.max_length")
    collate = collate_local_rows(runner, functools.partial(make_batch, task, corpus, codecs))
    frozen = place_references(references or {}, runner.place)

    @jax.jit
    def sums_of(params: Params, batch: Any, carry: Any, frozen: Any, index: int) -> Any:
        if task.online:
            key = jax.random.fold_in(rollout_key(experiment.seed, 0), index)
            batch = task.rollout(experiment.model, params, batch, Context(key, references=frozen))
        return task.loss(experiment.model, params, batch, Context(carry=carry, references=frozen))

    def judge(params: Params) -> tuple[dict[str, float], int, int]:
        params = runner.place(params)
        total: Any = None
        carry: Any = None
        for i, batch_plan in enumerate(batches):
            batch = runner.feed(collate(batch_plan))
            if i == 0:
                carry = zeros_like(jax.eval_shape(sums_of, params, batch, None, frozen, i).carry)
            *sums, carry = sums_of(params, batch, carry, frozen, i)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        loss, weight, sums = total
        values = {"loss": float(sums.get("nll", loss) / weight)}
        if "nll" in sums:
            values["perplexity"] = perplexity(values["loss"])
        if "correct" in sums:
            values["accuracy"] = 100 * float(sums["correct"] / weight)
        values |= {name: float(sums[name] / weight) for name in sums if name not in ("nll", "correct")}
        return values, int(weight), plan.left_out

    return judge


def plan_all(experiment: Experiment, corpus: Corpus) -> Plan:
    """Returns a plan with every example that the model can read: training may leave out long ones, and pairs of very
    different lengths; held-out data is judged whole.
    """
    batching = dataclasses.replace(experiment.batching, buckets=2)
    plan = experiment.task.plan(corpus, batching)
    if not plan.left_out:
        return plan
    longest = max(int(corpus.lengths(column).max()) for column in corpus.values) + 1
    max_length = min(longest, max_tokens(experiment.model))
    return experiment.task.plan(corpus, dataclasses.replace(batching, max_length=max_length, max_ratio=math.inf))


def make_validation(
    experiment: Experiment,
    data: PreparedData,
    codecs: Codecs,
    corpus: Corpus,
    references: dict[str, Reference] | None = None,
) -> Callable[[Params], dict[str, float]]:
    """Returns a function from parameters to the loss of the validation split and, if validation.beam is above 0, the
    metrics of the task.
    """
    try:
        loss_of = loss_of_split(experiment, codecs, corpus, references)
    except SeqlabError as error:
        raise SeqlabError(f"split validation: {error}") from None
    beam, search = experiment.validation.beam, validation_search(experiment)

    def validate(params: Params) -> dict[str, float]:
        params = apply_parametrization(experiment, params)
        values, _, _ = loss_of(params)
        if beam and math.isfinite(values["loss"]):
            trained = TrainedModel(experiment.task, experiment.model, params, codecs)
            decoded = decode_split(trained, search, data, "validation", len(corpus), corpus)
            values |= {metric: scores[0].value for metric, scores in decoded.scores.items()}
        return values

    return validate
