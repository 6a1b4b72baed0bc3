"""Exact match: the percentage of lines that equal one of their references."""

from collections.abc import Sequence

from seqlab.metrics.metric import LineCounts, Metric, TextLines, count_means, percent_matching


def count_exact_matches(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    signature = f"nrefs:{len(references)}|case:mixed"
    return count_means(percent_matching(hypotheses, references), ["exact match"], signature)


METRICS: dict[str, Metric] = {
    "exact_match": Metric(
        "The percentage of lines that equal one of their references, ignoring leading and trailing blanks.",
        count_exact_matches,
    ),
}
