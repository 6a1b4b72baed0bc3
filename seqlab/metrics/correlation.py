"""Pearson's and Spearman's correlation of numbers."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from seqlab.metrics.metric import LineCounts, Metric, TextLines, check_single_reference, read_numbers


def count_pairs(
    hypotheses: TextLines,
    references: Sequence[TextLines],
    name: str,
    correlate: Callable[[np.ndarray, np.ndarray], float],
) -> LineCounts:
    """Returns the predicted and expected number of each line; the correlation needs all lines. Raises `SeqlabError`
    for a line that is not a finite number.
    """
    check_single_reference(references, name)
    pairs = np.stack([read_numbers(lines, name) for lines in (hypotheses, references[0])], axis=1)

    def values(rows: np.ndarray) -> dict[str, float]:
        if len(rows) < 2 or (rows == rows[0]).all(axis=0).any():
            return {name: 0.0}  # the correlation of constant numbers is undefined
        return {name: 100 * float(correlate(rows[:, 0], rows[:, 1]))}

    return LineCounts(pairs, values, f"nrefs:1|lines:{len(pairs)}", corpus=True)


def pearson(predicted: np.ndarray, expected: np.ndarray) -> float:
    return np.corrcoef(standardized(predicted), standardized(expected))[0, 1]


def standardized(numbers: np.ndarray) -> np.ndarray:
    """Returns the deviations from the mean, the largest of which is 1: squares of very large or small numbers leave
    the range of float64.
    """
    scaled = numbers / np.abs(numbers).max()
    deviations = scaled - scaled.mean()
    return deviations / np.abs(deviations).max()


def spearman(predicted: np.ndarray, expected: np.ndarray) -> float:
    from scipy.stats import rankdata

    return pearson(rankdata(predicted), rankdata(expected))


METRICS: dict[str, Metric] = {
    "pearson": Metric(
        "Pearson's correlation of lines that are numbers, times 100.",
        functools.partial(count_pairs, name="Pearson", correlate=pearson),
    ),
    "spearman": Metric(
        "Spearman's rank correlation of lines that are numbers, times 100; ties share a rank.",
        functools.partial(count_pairs, name="Spearman", correlate=spearman),
    ),
}
