"""Accuracy: the percentage of lines with the correct class."""

from collections.abc import Sequence

from seqlab.metrics.metric import LineCounts, Metric, TextLines, count_means, percent_matching


def count_accuracy(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    signature = f"nrefs:{len(references)}|lines:{len(hypotheses)}"
    return count_means(percent_matching(hypotheses, references), ["accuracy"], signature)


METRICS: dict[str, Metric] = {
    "accuracy": Metric("The percentage of lines with the correct class.", count_accuracy),
}
