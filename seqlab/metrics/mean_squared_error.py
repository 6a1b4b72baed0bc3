"""The mean squared error of lines that are numbers."""

from collections.abc import Sequence

import numpy as np

from seqlab.metrics.metric import LineCounts, Metric, TextLines, check_single_reference, count_means
from seqlab.system.errors import SeqlabError


def count_squared_errors(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    """Counts the squared error of each line. Raises for a line that is not a finite number."""
    check_single_reference(references, "a mean squared error")
    try:
        predicted, expected = (np.array(lines, np.float64) for lines in (hypotheses, references[0]))
    except ValueError as error:
        raise SeqlabError(f"a mean squared error is of lines that are numbers: {error}") from None
    if not (np.isfinite(predicted).all() and np.isfinite(expected).all()):
        raise SeqlabError("a mean squared error is of lines that are finite numbers")
    signature = f"nrefs:1|lines:{len(predicted)}"
    return count_means(((predicted - expected) ** 2)[:, None], ["mean squared error"], signature)


METRICS: dict[str, Metric] = {
    "mse": Metric(
        "Mean squared error of lines that are numbers, against one reference: lower is better.", count_squared_errors
    ),
}
