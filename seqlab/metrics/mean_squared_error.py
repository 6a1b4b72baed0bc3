"""The mean squared error of lines that are numbers."""

from collections.abc import Sequence

from seqlab.metrics.metric import LineCounts, Metric, TextLines, check_single_reference, count_means, read_numbers


def count_squared_errors(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    """Counts the squared error of each line. Raises `SeqlabError` for a line that is not a finite number."""
    check_single_reference(references, "mean squared error")
    predicted, expected = (read_numbers(lines, "mean squared error") for lines in (hypotheses, references[0]))
    signature = f"nrefs:1|lines:{len(predicted)}"
    return count_means(((predicted - expected) ** 2)[:, None], ["mean squared error"], signature)


METRICS: dict[str, Metric] = {
    "mse": Metric(
        "Mean squared error of lines that are numbers, against one reference: lower is better.",
        count_squared_errors,
        lower_is_better=True,
    ),
}
