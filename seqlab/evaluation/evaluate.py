"""The evaluation of a run on a split: likelihood, metrics of its texts, and a baseline."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.config import Search
from seqlab.data.codec_files import RUN_RECORD
from seqlab.data.corpus import Corpus, encode_split
from seqlab.data.records import PreparedData, prepare_split
from seqlab.data.task import generates
from seqlab.decoding.decoded_split import DecodedSplit, decode_split
from seqlab.decoding.log_probs import is_causal
from seqlab.evaluation.doubts import doubts
from seqlab.evaluation.significance import compare
from seqlab.metrics.metric import Score
from seqlab.metrics.registry import count
from seqlab.runs.base import without_base
from seqlab.runs.loading import Run
from seqlab.runs.references import load_references
from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import resolve_inside
from seqlab.training.meter import perplexity
from seqlab.training.validation import loss_of_split
from seqlab.types import Reference, Tagger

CAUSALITY_EXAMPLES = 8  # examples on which causality is checked


class Evaluation(NamedTuple):
    """The scores of a split, the decoded texts, their search, the data, the splits that have changed since the run
    was trained, and warnings about the texts.
    """

    scores: list[Score]
    decoded: DecodedSplit
    search: Search
    data: PreparedData
    changed: list[str]
    doubts: list[str]


def evaluate(run: Run, split: str, data_dir: Path, base: Path | None = None, **search: Any) -> Evaluation:
    """Returns the perplexity of a split and the task's metrics for its decoded texts and for the task's baseline.
    Raises `SeqlabError` for a generator that sees later tokens and therefore has no perplexity.
    """
    run = run.with_search(**search)
    experiment = run.experiment
    data = prepare_split(experiment.data, split, data_dir)
    corpus = encode_split(data, split, run.codecs, data_dir)
    references = load_references(without_base(experiment), run.folder, run.codecs, base)
    scores = likelihood_scores(run, data, split, corpus, references)
    decoded = decode_split(run.trained, experiment.search, data, split, len(corpus), corpus)
    scores += itertools.chain.from_iterable(decoded.scores.values())
    if decoded.texts and "train" in data.counts and hasattr(experiment.task, "baseline"):
        name, answers = experiment.task.baseline(decoded.sources, data.read("train"))
        scores += baseline_scores(name, answers, decoded)
    changed = data.changed_since(resolve_inside(run.folder, RUN_RECORD))
    text_doubts = []
    if decoded.texts:
        task = experiment.task
        text_doubts = doubts(task.metrics, decoded.texts, [decoded.references], task.tokenized)
    return Evaluation(scores, decoded, experiment.search, data, changed, text_doubts)


def likelihood_scores(
    run: Run, data: PreparedData, split: str, corpus: Corpus, references: dict[str, Reference]
) -> list[Score]:
    """Returns scores of the probabilities of a split's answers: perplexity by token and, for texts, perplexity by
    word and bits by character, which compare models with different codecs. The end of a line counts as a token, a
    word and a character. Only examples that are longer than the model can read are left out.
    """
    task, model = run.experiment.task, run.experiment.model
    writes = generates(task) and task.searches  # spans and noisy texts are predicted, but not written
    if writes:
        examples = list(data.read(split, 0, CAUSALITY_EXAMPLES))
        sources, targets = ([example.get(column, "") for example in examples] for column in ("source", "target"))
        if not is_causal(run.trained, sources, targets):
            raise SeqlabError(
                f"{type(model).__name__} sees later tokens and has no perplexity (seqlab check {run.folder})"
            )
    values, units, left_out = loss_of_split(run.experiment, run.codecs, corpus, references)(run.params)
    signature = f"unit:{task.unit}|{task.unit}s:{units}|left-out:{left_out}"
    names = ("loss" if task.model is Tagger and "label" in task.columns else "perplexity", "accuracy")
    scores = [Score(n, values[n], signature) for n in names if n in values and n not in task.metrics]
    if writes and "perplexity" in values and not left_out:
        texts = [example["target"] for example in data.read(split)]
        words, characters = (
            sum(map(len, units_of_texts)) + len(texts) for units_of_texts in (map(str.split, texts), texts)
        )
        nats = values["loss"] * units
        scores += [
            Score("perplexity by word", perplexity(nats / words), f"unit:word|words:{words}"),
            Score("bits by character", nats / math.log(2) / characters, f"unit:character|characters:{characters}"),
        ]
    return scores


def baseline_scores(name: str, answers: list[str], decoded: DecodedSplit) -> Iterator[Score]:
    """Yields the scores of trivial answers, with the p-value of the difference by approximate randomization."""
    for metric in decoded.scores:
        baseline_counts, decoded_counts = (
            count(metric, texts, [decoded.references]) for texts in (answers, decoded.texts)
        )
        comparison = compare([[baseline_counts], [decoded_counts]])
        for label, value, signature in baseline_counts.scores():
            yield Score(f"{label} ({name})", value, f"{signature}|p:{comparison[label][1].randomization:.4f}")
