"""Validation of parameters on a held-out split: its loss, and the scores of decoded texts."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqlab.config import Experiment, Search
from seqlab.data.batches import make_batch
from seqlab.data.corpus import Corpus
from seqlab.data.records import Prepared
from seqlab.data.tokenizers import Tokenizers
from seqlab.decoding.lines import decode_lines
from seqlab.decoding.requests import Lines
from seqlab.decoding.trained import Trained
from seqlab.distributed.devices import collate_local_rows, make_runner
from seqlab.metrics.metric import Score
from seqlab.metrics.registry import score
from seqlab.system.errors import SeqlabError
from seqlab.system.progress import progress
from seqlab.training.checks import check_longest
from seqlab.types import Params, zeros_like


def perplexity(nll: float) -> float:
    return math.exp(min(nll, 700.0))


def loss_of_split(
    experiment: Experiment, tokenizers: Tokenizers, corpus: Corpus
) -> Callable[[Params], tuple[dict[str, float], int, int]]:
    """A function from parameters to the losses of a split, the number of its tokens or examples, and the number of
    examples that are left out, by the same limits as in training. The loss is in nats for a token or example, without
    label smoothing, and comes with perplexity and accuracy, in percent; a regressor's is a mean squared error.
    """
    task = experiment.task
    runner = make_runner()
    plan = task.plan(corpus, dataclasses.replace(experiment.batching, buckets=2))
    check_longest(experiment.model, plan)
    batches = plan.batches(0, None)
    if not batches:
        raise SeqlabError("no held-out example is short enough: raise batching.max_length")
    collate = collate_local_rows(runner, functools.partial(make_batch, task, corpus, tokenizers))
    sums_of = jax.jit(lambda params, batch, carry: task.loss(experiment.model, params, batch, carry, None))

    def judge(params: Params) -> tuple[dict[str, float], int, int]:
        params = runner.place(params)
        total: Any = None
        carry: Any = None
        for i, rows in enumerate(batches):
            batch = runner.feed(collate(rows))
            if i == 0:
                carry = zeros_like(jax.eval_shape(sums_of, params, batch, None)[-1])
            *sums, carry = sums_of(params, batch, carry)
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        loss, weight, sums = total
        values = {"loss": float(sums.get("nll", loss) / weight)}
        if sums:
            values["perplexity"] = perplexity(values["loss"])
            values["accuracy"] = 100 * float(sums["correct"] / weight)
        return values, int(weight), plan.left_out

    return judge


class DecodedSplit(NamedTuple):
    """The first examples of a split, decoded, and the scores of each metric; empty for a task without metrics."""

    sources: list[str]
    texts: list[str]
    references: list[str]
    scores: dict[str, list[Score]]
    seconds: float


def decode_split(trained: Trained, search: Search, data: Prepared, split: str, corpus: Corpus) -> DecodedSplit:
    """Decodes and scores the examples of a split that a corpus holds, which are its first ones."""
    task, count = trained.task, len(corpus)
    if not task.metrics:
        return DecodedSplit([], [], [], {}, 0.0)
    examples = list(data.read(split, 0, count))
    answer = "label" if "label" in task.columns else "target"
    sources, references = ([example[column] for example in examples] for column in ("source", answer))
    if task.columns[answer] == "symbols":  # the blanks between them do not count
        references = [" ".join(reference.split()) for reference in references]
    lines = Lines(sources, [corpus.row("source", i) for i in range(count)])
    begun = time.perf_counter()
    with progress("decoding", count) as advance:
        decoded = decode_lines(trained, lines, search, progress=advance)
    seconds = time.perf_counter() - begun
    texts = [best[0].text for best in decoded]
    scores = {metric: score(metric, texts, [references]) for metric in task.metrics}
    return DecodedSplit(sources, texts, references, scores, seconds)


def make_validation(
    experiment: Experiment, data: Prepared, tokenizers: Tokenizers, corpus: Corpus
) -> Callable[[Params], dict[str, float]]:
    """A function from parameters to the loss of the validation split and, if validation.beam is above 0, to the
    task's metrics.
    """
    try:
        loss_of = loss_of_split(experiment, tokenizers, corpus)
    except SeqlabError as error:
        raise SeqlabError(f"split validation: {error}") from None
    beam, search = experiment.validation.beam, experiment.search
    if beam:
        greedy = {"groups": 1, "coverage": 0.0} if beam == 1 else {}
        search = dataclasses.replace(search, beam=beam, **greedy)

    def validate(params: Params) -> dict[str, float]:
        values, _, _ = loss_of(params)
        if beam and math.isfinite(values["loss"]):
            trained = Trained(experiment.task, experiment.model, params, tokenizers)
            decoded = decode_split(trained, search, data, "validation", corpus)
            values |= {metric: scores[0].value for metric, scores in decoded.scores.items()}
        return values

    return validate
