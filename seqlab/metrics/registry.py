"""The registry of metrics, and the scores of plain text.

A metric counts matching n-grams, edits or hits in each line. Most scores depend only on the sum of these counts, so
one function scores a corpus, a single line, and a corpus resampled from its lines. Other scores, such as a rank
correlation, are functions of the counts of all lines; single lines have no such score.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlab.metrics.metric import LineCounts, Metric, Score, TextLines, check_lines
from seqlab.system.errors import SeqlabError
from seqlab.system.parts import module, names


def load_metrics() -> tuple[dict[str, Metric], dict[str, str]]:
    """Returns all metrics by name, and errors by name: errors of files that cannot be loaded, and of metrics that are
    defined by two files.
    """
    metrics: dict[str, Metric] = {}
    files: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for file in names("metrics"):
        try:
            loaded = module("metrics", file)
        except SeqlabError as error:
            errors[file] = str(error)
            continue
        if not is_metrics(loaded.METRICS):
            errors[file] = f"{loaded.__file__}: METRICS must be a dict of seqlab.metrics.metric.Metric by name"
            continue
        for name, metric in loaded.METRICS.items():
            if name in files:
                errors[name] = f"{loaded.__file__} and {files[name]} define a metric {name!r}: rename one"
            metrics[name], files[name] = metric, loaded.__file__
    return {name: metric for name, metric in metrics.items() if name not in errors}, errors


def is_metrics(value: Any) -> bool:
    """Returns whether a value is a dict of metrics by name."""
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Metric) for k, v in value.items())


def find_metric(name: str) -> Metric:
    """Returns a metric by name. Raises `SeqlabError` for an unknown name or for a metric that two files define."""
    metrics, errors = load_metrics()
    if name in metrics:
        return metrics[name]
    if name in errors:
        raise SeqlabError(errors[name])
    hint = "".join(f"; {error}" for error in errors.values()) or "; custom metrics need --parts DIR"
    raise SeqlabError(f"unknown metric {name!r}: expected one of {', '.join(metrics)}{hint}")


def count(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    """Returns the counts of a metric for each line of hypotheses, against one or more lists of references."""
    count_lines = find_metric(name).count_lines
    check_lines(hypotheses, references)
    return checked_counts(name, count_lines(hypotheses, references), len(hypotheses))


def checked_counts(name: str, counts: Any, lines: int) -> LineCounts:
    """Returns the counts of a metric. Raises `SeqlabError` for other values, and for another number of lines."""
    if not isinstance(counts, LineCounts):
        raise SeqlabError(f"the metric {name} must return LineCounts, not {type(counts).__name__}")
    if np.shape(counts.counts)[:1] != (lines,):
        raise SeqlabError(f"the metric {name} returns counts of shape {np.shape(counts.counts)} for {lines} lines")
    return counts


def score(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> list[Score]:
    """Returns the scores of hypotheses against one or more lists of references."""
    return count(name, hypotheses, references).scores()


def score_lines(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> dict[str, np.ndarray]:
    """Returns the scores [lines] of single lines, by name.

    BLEU of a line uses sacrebleu's effective order: it ignores n-gram orders that exceed the length of the line. Its
    mean over lines is not corpus BLEU. Raises `SeqlabError` for a metric that scores only a corpus.
    """
    selected = find_metric(name)
    check_lines(hypotheses, references)
    count_lines = selected.count_single_lines or selected.count_lines
    line_counts = checked_counts(name, count_lines(hypotheses, references), len(hypotheses))
    if line_counts.corpus:
        raise SeqlabError(f"{name} has no score for single lines: choose another metric")
    rows = [line_counts.values(row) for row in line_counts.counts]
    return {label: np.array([row[label] for row in rows]) for label in rows[0]}
