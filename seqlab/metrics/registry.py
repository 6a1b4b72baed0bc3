"""All metrics by name, and the scores of plain text.

A metric counts something in each line (matching n-grams, edits, hits). Most scores depend on the sum of these counts
alone, so one function scores a corpus, a line of it, and a corpus resampled from its lines. The others, such as a
rank correlation, are functions of the counts of all lines; a single line has no score.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlab.metrics.metric import LineCounts, Metric, Score, TextLines, check_lines
from seqlab.system.errors import SeqlabError
from seqlab.system.parts import module, names


def load_metrics() -> tuple[dict[str, Metric], dict[str, str]]:
    """Returns all metrics by name, and errors by name: of a file that cannot be used, or of a metric that two files
    define.
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
        for name, metric in loaded.METRICS.items():
            if name in files:
                errors[name] = f"{loaded.__file__} and {files[name]} define a metric {name!r}: rename one"
            metrics[name], files[name] = metric, loaded.__file__
    return {name: metric for name, metric in metrics.items() if name not in errors}, errors


def find_metric(name: str) -> Metric:
    """Returns the metric of that name. Raises `SeqlabError` for an unknown name, or one that two files define."""
    metrics, errors = load_metrics()
    if name in metrics:
        return metrics[name]
    if name in errors:
        raise SeqlabError(errors[name])
    hint = "".join(f"; {error}" for error in errors.values()) or "; those of your own need --parts DIR"
    raise SeqlabError(f"unknown metric {name!r}: one of {', '.join(metrics)}{hint}")


def count(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    """Returns what a metric counts in each line of hypotheses, against one or more lists of references."""
    count_lines = find_metric(name).count_lines
    check_lines(hypotheses, references)
    return count_lines(hypotheses, references)


def score(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> list[Score]:
    """Returns the scores of hypotheses against one or more lists of references."""
    return count(name, hypotheses, references).scores()


def score_lines(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> dict[str, np.ndarray]:
    """Returns the scores [lines] of each line alone, by name.

    BLEU of a line counts the orders of n-grams that the line is long enough for (sacrebleu's effective order). The
    mean over lines is not the BLEU of the corpus. Raises `SeqlabError` for a metric that scores only a corpus.
    """
    selected = find_metric(name)
    check_lines(hypotheses, references)
    line_counts = (selected.count_single_lines or selected.count_lines)(hypotheses, references)
    if line_counts.corpus:
        raise SeqlabError(f"{name} is of many lines together, and a single line has no score: choose another metric")
    rows = [line_counts.values(row) for row in line_counts.counts]
    return {label: np.array([row[label] for row in rows]) for label in rows[0]}
