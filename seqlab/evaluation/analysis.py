"""Search errors and model errors.

If a model prefers the reference to the decoded text, P(reference) > P(text), the search has made an error; otherwise
the model has (Stahlberg & Byrne 2019, "On NMT search errors and model errors: cat got your tongue?"). The preference
is measured by log-probability, and by the score that the search maximizes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from seqlab.config import Search
from seqlab.data.records import prepare
from seqlab.decoding.decoded_text import DecodedText
from seqlab.decoding.lines import warn
from seqlab.decoding.log_probs import forced_pairs, longest_side
from seqlab.decoding.requests import Lines, requests_of
from seqlab.decoding.settings import resolve_search
from seqlab.metrics.registry import find_metric, score, score_lines
from seqlab.metrics.rouge import words
from seqlab.runs.loading import Run
from seqlab.search.exact import exact_search
from seqlab.search.forced import token_log_probs
from seqlab.search.length_penalty import normalized_score
from seqlab.search.processors import make_processors
from seqlab.search.requests import Request, max_tokens
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError


class Preference(NamedTuple):
    """The values of the decoded text and of the reference, higher is better, and the fault: "none" if both texts are
    the same, "search" or "model".
    """

    text: float
    reference: float
    fault: str


class Line(NamedTuple):
    """An example of the split, numbered from 0, its decoded text, and the preference of the model."""

    number: int
    source: str
    reference: str
    text: str
    by_log_prob: Preference
    by_score: Preference


class Width(NamedTuple):
    """The output of one beam width: the corpus score; the corpus score of the best text of each n-best list; the
    length of the output relative to the references and the share of empty texts, in percent; and the mean search
    score.
    """

    beam: int
    value: float
    oracle: float
    length: float
    empty: float
    searched: float


class Exact(NamedTuple):
    """The outcome of exact search on a sample, as numbers of lines: `decided` within the budget of model steps, and
    of these `better`, where it found a better text than the widest beam, and `empty`, where the best text is empty.
    """

    lines: int
    budget: int
    decided: int
    better: int
    empty: int


class Analysis(NamedTuple):
    metric: str
    search: dict[str, Any]
    lines: list[Line]
    unreachable: int
    """The number of references that are longer than the maximum length of a text."""
    widths: list[Width]
    exact: Exact | None


def analyze(
    run: Run,
    split: str,
    data_dir: Path,
    *,
    lines: int = 0,
    beams: Sequence[int] = (),
    exact: int = 0,
    nodes: int = 1000,
) -> Analysis:
    """Analyzes the first `lines` examples of a split (0: all), beams of the given widths, and `exact` of the lines by
    exact search with at most `nodes` model steps each. Raises `SeqlabError` for a run that does not search.
    """
    task, search = run.experiment.task, run.experiment.search
    if not task.searches or not task.metrics:
        name = type(task).__name__
        raise SeqlabError(f"{name} does not search, so it has no search errors: choose a run that generates text")
    check_search(search)
    check_effort(lines, beams, exact, nodes)
    data = prepare(run.experiment.data, data_dir)
    size = data.size(split)
    examples = list(data.read(split, 0, min(lines or size, size)))
    rows = [i for i, example in enumerate(examples) if example["source"].strip()]
    if not rows:
        raise SeqlabError(f"split {split} has no sources")
    requests = requests_of(run.trained, Lines([example["source"] for example in examples]), rows, search, warn)
    static = resolve_search(search, run.codecs["target"]).static
    if exact and (make_processors(static) or any(request.minimum > 1 for request in requests)):
        raise SeqlabError(
            "exact search does not support minimum lengths or forbidden tokens, which the preset "
            f"{search.preset} may set: leave out exact search with --exact 0"
        )
    sources, references = ([examples[i][column] for i in rows] for column in ("source", "target"))
    reference_ids = forced_pairs(run.trained, sources, references)[1]
    if max(map(longest_side, requests, reference_ids)) > max_tokens(run.model):
        raise SeqlabError(f"a reference has more than the {max_tokens(run.model)} tokens that the model can read")
    unreachable = sum(len(ids) > request.limit for ids, request in zip(reference_ids, requests, strict=True))
    texts = [best[0] for best in run.write(sources)]
    preferences = preferences_of(run, requests, texts, references, reference_ids)
    judged = [
        Line(i, source, reference, text.text, *pair)
        for i, source, reference, text, pair in zip(rows, sources, references, texts, preferences, strict=True)
    ]
    metric = task.metrics[0]
    widths, widest = widths_of(run, metric, sources, references, beams)
    optima = search_exactly(run, requests, widest, exact, nodes) if exact and beams else None
    return Analysis(metric, dataclasses.asdict(search), judged, unreachable, widths, optima)


def preferences_of(
    run: Run,
    requests: Sequence[Request],
    texts: Sequence[DecodedText],
    references: Sequence[str],
    reference_ids: Sequence[Sequence[int]],
) -> list[tuple[Preference, Preference]]:
    """Returns the preference of the model for each line, text or reference, by log-probability and by score."""
    sides = [text.ids for text in texts], reference_ids
    sums = [[float(x.sum()) for x in token_log_probs(run.model, run.params, requests, ids)] for ids in sides]
    scores = [normalized_scores(run, ids, values) for ids, values in zip(sides, sums, strict=True)]
    equal = [text.text.strip() == reference.strip() for text, reference in zip(texts, references, strict=True)]
    by_log_prob, by_score = (list(map(preference, *values, equal)) for values in (sums, scores))
    return list(zip(by_log_prob, by_score, strict=True))


def check_effort(lines: int = 0, beams: Sequence[int] = (), exact: int = 0, nodes: int = 1000) -> None:
    """Raises `SeqlabError` for an argument of `analyze` that is below its minimum."""
    for name, value, minimum in (("--lines", lines, 0), ("--exact", exact, 0), ("--nodes", nodes, 1)):
        check_minimum(name, value, minimum)
    check_minimum("--beams", min(beams, default=1), 1)


def check_search(search: Search) -> None:
    """Raises `SeqlabError` for a search with scores other than the model's, or that cannot return the references."""
    defaults = Search()
    names = ("sample", "coverage", "no_repeat", "repetition", "forbid", "min_length", "min_ratio", "groups")
    changed = [name for name in names if getattr(search, name) != getattr(defaults, name)]
    if changed:
        options = " and ".join(f"search.{name}" for name in changed)
        raise SeqlabError(f"{options} cannot be used when references are scored: leave out {options}")


def normalized_scores(run: Run, ids: Sequence[Sequence[int]], log_probs: Sequence[float]) -> list[float]:
    """Returns the scores that the search of the run maximizes."""
    static, weights, *_ = resolve_search(run.experiment.search, run.codecs["target"])
    sums, lengths = jnp.array(log_probs, jnp.float32), jnp.array([*map(len, ids)], jnp.int32)
    return normalized_score(sums, lengths, weights.alpha, weights.word_penalty, static.rules.length_penalty).tolist()


def preference(text: float, reference: float, equal: bool) -> Preference:
    return Preference(text, reference, "none" if equal else "search" if reference > text else "model")


def faults(lines: Sequence[Line]) -> dict[str, dict[str, int]]:
    """Returns the number of lines with each fault, by both measures."""
    measures = {
        "by log-probability": [line.by_log_prob.fault for line in lines],
        "by search score": [line.by_score.fault for line in lines],
    }
    return {
        name: {fault: observed.count(fault) for fault in ("none", "search", "model")}
        for name, observed in measures.items()
    }


def widths_of(
    run: Run, metric: str, sources: Sequence[str], references: Sequence[str], beams: Sequence[int]
) -> tuple[list[Width], list[DecodedText]]:
    """Returns the results of beams of the given widths, and the best texts of the widest."""
    reference_words = sum(len(words(line)) for line in references)
    widths, best = [], []
    for beam in sorted({*beams}):
        lists = run.write(sources, nbest=beam, beam=beam)
        best = [nbest[0] for nbest in lists]
        texts = [text.text for text in best]
        hypotheses = [text.text for nbest in lists for text in nbest]
        repeated = [reference for nbest, reference in zip(lists, references, strict=True) for _ in nbest]
        line_scores, *_ = score_lines(metric, hypotheses, [repeated]).values()
        values = iter(-line_scores if find_metric(metric).lower_is_better else line_scores)
        oracle = [nbest[int(np.argmax([next(values) for _ in nbest]))].text for nbest in lists]
        widths.append(
            Width(
                beam,
                score(metric, texts, [references])[0].value,
                score(metric, oracle, [references])[0].value,
                100 * sum(len(words(text)) for text in texts) / max(reference_words, 1),
                100 * sum(not text.strip() for text in texts) / len(texts),
                float(np.mean([text.score for text in best])),
            )
        )
    return widths, best


def search_exactly(
    run: Run, requests: Sequence[Request], widest: Sequence[DecodedText], sample: int, budget: int
) -> Exact:
    """Runs exact search on an evenly spaced sample of the sentences, with the scores of the widest beam as bounds."""
    settings = resolve_search(run.experiment.search, run.codecs["target"])
    rows = np.unique(np.linspace(0, len(requests) - 1, min(sample, len(requests))).astype(int))
    incumbents = [widest[i].score for i in rows]
    optima = exact_search(
        run.model, run.params, [requests[i] for i in rows], settings, incumbents=incumbents, budget=budget
    )
    decided = [(row, optimum) for row, optimum in zip(rows, optima, strict=True) if optimum.decided]
    return Exact(
        len(rows),
        budget,
        len(decided),
        sum(bool(optimum.ids) for _, optimum in decided),
        sum(len(optimum.ids or widest[i].ids) == 1 for i, optimum in decided),
    )


def format_analysis(analysis: Analysis) -> str:
    """Returns the analysis as text for a terminal."""
    count = len(analysis.lines)
    lines = [
        f"{count:,} lines, beam {analysis.search['beam']}",
        "",
        f"{'':26} {'by log-probability':>20} {'by score':>20}",
    ]
    names = {"none": "equal to the reference", "search": "search error", "model": "model error"}
    for fault, name in names.items():
        counts = [counts[fault] for counts in faults(analysis.lines).values()]
        lines.append(f"{name:26}" + "".join(f" {n:12,} {100 * n / count:5.1f} %" for n in counts))
    lines.append(f"references longer than the maximum length: {analysis.unreachable}")
    lines += [
        "",
        f"{'beam':>6} {analysis.metric:>10} {'oracle':>10} {'length %':>10} {'empty %':>10} {'mean score':>12}",
    ]
    lines += [
        f"{w.beam:6} {w.value:10.2f} {w.oracle:10.2f} {w.length:10.1f} {w.empty:10.1f} {w.searched:12.4f}"
        for w in analysis.widths
    ]
    if analysis.exact is not None:
        e = analysis.exact
        lines += [
            "",
            f"exact search, {e.lines} lines, at most {e.budget:,} steps of the model each: {e.decided} decided, "
            f"{100 * (e.lines - e.decided) / e.lines:.1f} % undecided;",
            f"of the decided lines, {e.better} have a better text than the widest beam's; "
            f"the best text of {e.empty} is empty",
        ]
    return "\n".join(lines)
