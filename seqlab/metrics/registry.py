"""All metrics by name, and the scores of plain text.

A metric counts something in each line (matching n-grams, edits, hits), and its scores depend on the sum of these
counts alone. So one function scores a corpus, a line of it, and a corpus resampled from its lines.
"""

from collections.abc import Sequence

import numpy as np

from seqlab.metrics import accuracy, bleu, chrf, exact_match, macro_f1, mean_squared_error, rouge, ter
from seqlab.metrics.metric import LineCounts, Metric, Score, TextLines, check_lines
from seqlab.system.errors import SeqlabError

METRICS: dict[str, Metric] = {
    **bleu.METRICS,
    **chrf.METRICS,
    **ter.METRICS,
    **rouge.METRICS,
    **exact_match.METRICS,
    **accuracy.METRICS,
    **macro_f1.METRICS,
    **mean_squared_error.METRICS,
}

LOWER_IS_BETTER = ("TER", "mean squared error")  # names of scores


def metric(name: str) -> Metric:
    """Returns the metric of that name. Raises `SeqlabError` for an unknown name."""
    if name not in METRICS:
        raise SeqlabError(f"unknown metric {name!r}: one of {', '.join(METRICS)}")
    return METRICS[name]


def count(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    """Returns what a metric counts in each line of hypotheses, against one or more lists of references."""
    count_lines = metric(name).count_lines
    check_lines(hypotheses, references)
    return count_lines(hypotheses, references)


def score(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> list[Score]:
    """Returns the scores of hypotheses against one or more lists of references."""
    return count(name, hypotheses, references).scores()


def score_lines(name: str, hypotheses: TextLines, references: Sequence[TextLines]) -> dict[str, np.ndarray]:
    """Returns the scores [lines] of each line alone, by name.

    BLEU of a line counts the orders of n-grams that the line is long enough for (sacrebleu's effective order). The
    mean over lines is not the BLEU of the corpus.
    """
    selected = metric(name)
    check_lines(hypotheses, references)
    line_counts = (selected.count_single_lines or selected.count_lines)(hypotheses, references)
    rows = [line_counts.values(row) for row in line_counts.counts]
    return {label: np.array([row[label] for row in rows]) for label in rows[0]}


def lower_is_better(score_name: str) -> bool:
    """Whether a lower value of a score of that name is better."""
    return score_name in LOWER_IS_BETTER
