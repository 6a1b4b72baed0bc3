"""Judging parameters on a held-out split: by loss, and by the scores of decoded text."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqlab.batching import Plan
from seqlab.config import Experiment, Search
from seqlab.datasets import Prepared
from seqlab.errors import SeqlabError, at_least
from seqlab.lines import decode_lines
from seqlab.metrics import Score, score
from seqlab.metrics.risk import UTILITIES
from seqlab.parallel import collate_own, make_runner
from seqlab.progress import progress
from seqlab.search.requests import LONGEST
from seqlab.search.rules import preset
from seqlab.step import zeros_like
from seqlab.tasks import make_batch
from seqlab.text import Corpus, Tokenizers, tokenize
from seqlab.types import Params

MOST_BEAM = 10_000


def tokenize_split(
    data: Prepared,
    split: str,
    tokenizers: Tokenizers,
    data_dir: Path,
    most: int | None = None,
    rates: tuple[float, ...] = (),
) -> Corpus:
    """The ids of a split, of its first `most` examples. `rates`: those of a mixture, which only training heeds."""
    count = min(data.size(split), most or data.size(split))
    content = f"{split} {count} {data.hashes[split]}"
    try:
        corpus = tokenize(data.read(split, 0, count), count, content, tokenizers, data_dir)
    except SeqlabError as error:
        raise SeqlabError(f"split {split}: {error}") from None
    return (
        dataclasses.replace(corpus, parts=tuple(zip(data.part_sizes[split], rates, strict=True))) if rates else corpus
    )


def perplexity(nll: float) -> float:
    return math.exp(min(nll, 700.0))


def loss_of_split(
    experiment: Experiment, tokenizers: Tokenizers, corpus: Corpus
) -> Callable[[Params], tuple[dict[str, float], int, int]]:
    """A function from parameters to the loss of a split, the number of its tokens, or documents, and the number of
    examples that are left out, by the same limits as in training. The loss is nats a token or document, without
    label smoothing, and comes with perplexity and accuracy, in percent; a regressor's is a mean squared error.
    """
    task = experiment.task
    runner = make_runner()
    plan = task.plan(corpus, dataclasses.replace(experiment.batching, buckets=2))
    check_longest(experiment.model, plan)
    batches = plan.batches(0, None)
    if not batches:
        raise SeqlabError("no held-out example is short enough: raise batching.max_length")
    collate = collate_own(runner, functools.partial(make_batch, task, corpus, tokenizers))
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


def check_longest(model: Any, plan: Plan) -> None:
    """Raises where a batch has more positions than the model."""
    most = getattr(model, "longest", None)
    if most is not None and plan.longest > most:
        raise SeqlabError(
            f"there are batches of {plan.longest} positions, and the model has {most}: raise model.max_length, or "
            f"set batching.max_length to {most}"
        )


class Decoded(NamedTuple):
    """The first examples of a split, decoded, and by metric what it says; empty for a task without metrics."""

    sources: list[str]
    texts: list[str]
    references: list[str]
    scores: dict[str, list[Score]]
    seconds: float


def decode_split(
    experiment: Experiment, params: Params, tokenizers: Tokenizers, data: Prepared, split: str, count: int
) -> Decoded:
    """Decodes and scores the first `count` examples of a split, by the experiment's search."""
    task = experiment.task
    if not task.metrics:
        return Decoded([], [], [], {}, 0.0)
    examples = list(data.read(split, 0, count))
    answer = "label" if "label" in task.columns else "target"
    sources, references = ([example[column] for example in examples] for column in ("source", answer))
    if task.columns[answer] == "symbols":  # the blanks between them do not count
        references = [" ".join(reference.split()) for reference in references]
    begun = time.perf_counter()
    with progress("decoding", len(examples)) as advance:
        written = decode_lines(
            task, experiment.model, params, tokenizers, sources, experiment.search, progress=advance
        )
    seconds = time.perf_counter() - begun
    texts = [best[0].text for best in written]
    scores = {metric: score(metric, texts, [references]) for metric in task.metrics}
    return Decoded(sources, texts, references, scores, seconds)


def make_validation(
    experiment: Experiment, data: Prepared, tokenizers: Tokenizers, corpus: Corpus
) -> Callable[[Params], dict[str, float]]:
    """What `loss_of_split` gives on the validation split, and the task's metrics if validation.beam asks."""
    try:
        loss_of = loss_of_split(experiment, tokenizers, corpus)
    except SeqlabError as error:
        raise SeqlabError(f"split validation: {error}") from None
    beam = experiment.validation.beam
    alone = {"groups": 1, "coverage": 0.0} if beam == 1 else {}
    experiment = dataclasses.replace(experiment, search=dataclasses.replace(experiment.search, beam=beam, **alone))

    def validate(params: Params) -> dict[str, float]:
        values, _, _ = loss_of(params)
        if beam and math.isfinite(values["loss"]):
            decoded = decode_split(experiment, params, tokenizers, data, "validation", len(corpus))
            values |= {metric: found[0].value for metric, found in decoded.scores.items()}
        return values

    return validate


def check_search(search: Search) -> None:
    """Raises `SeqlabError` for a search that cannot be."""
    if search.beam < 1:
        raise SeqlabError(f"a beam holds at least 1 hypothesis, not {search.beam}")
    if search.beam > MOST_BEAM:
        raise SeqlabError(f"a beam holds at most {MOST_BEAM:,} hypotheses, not {search.beam:,}")
    if search.max_length < 0:
        raise SeqlabError(f"the maximum length is at least 1 token, not {search.max_length}")
    found = preset(search.preset, search.length, search.stop, search.alpha)
    sizes = {"word_penalty": search.word_penalty, "coverage": search.coverage, "diversity": search.diversity}
    for name, value in {"alpha": found.alpha, **sizes}.items():
        if not abs(value) < 1e6:
            raise SeqlabError(f"{name} is a number below a million, not {value}")
    for name in ("min_length", "max_ratio", "min_ratio", "no_repeat", "coverage", "diversity"):
        at_least(name, getattr(search, name), 0)
    at_least("groups", search.groups, 1)
    at_least("batch_tokens", search.batch_tokens, 1)
    if max(search.max_length, search.min_length) > LONGEST:
        raise SeqlabError(
            f"texts have at most {LONGEST} tokens, and cannot be of {search.max_length or search.min_length}"
        )
    if search.beam % search.groups:
        raise SeqlabError(f"{search.groups} groups do not divide a beam of {search.beam}")
    if search.risk is not None and search.risk not in UTILITIES:
        raise SeqlabError(f"the risk is by one of {', '.join(UTILITIES)}, not {search.risk!r}")
    if search.sample is not None and search.groups > 1:
        raise SeqlabError("groups are of a beam, and samples have none")
    if not 0 < search.repetition < math.inf:
        raise SeqlabError(f"the repetition penalty is above 0, and 1 is none, not {search.repetition}")
    sampling = {
        "temperature": search.temperature != 1,
        "top_k": search.top_k != 0,
        "top_p": search.top_p != 1,
        "risk": search.risk is not None,
    }
    if search.sample is None and any(sampling.values()):
        name = next(name for name, given in sampling.items() if given)
        raise SeqlabError(f"{name} is for samples: give a seed, --sample 1")
    if search.sample is not None and not 0 <= search.sample < 1 << 31:
        raise SeqlabError(f"the seed of samples lies between 0 and {(1 << 31) - 1}, not at {search.sample}")
    at_least("top_k", search.top_k, 0)
    if not 0 < search.temperature < math.inf or not 0 < search.top_p <= 1:
        raise SeqlabError(
            f"the temperature is above 0 and top_p lies in (0, 1], not {search.temperature} and {search.top_p}"
        )
    if search.max_length and search.min_length > search.max_length:
        raise SeqlabError(f"at least {search.min_length} and at most {search.max_length} tokens is no length")
    if search.min_ratio > search.max_ratio > 0:
        raise SeqlabError(f"at least {search.min_ratio} and at most {search.max_ratio} times the source is no length")
