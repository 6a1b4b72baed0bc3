"""The share of lines that equal one of their references."""

from collections.abc import Sequence

from seqlab.metrics.metric import LineCounts, Metric, TextLines, count_means, percent_matching


def count_exact_matches(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    signature = f"nrefs:{len(references)}|case:mixed"
    return count_means(percent_matching(hypotheses, references), ["exact match"], signature)


METRICS: dict[str, Metric] = {
    "exact_match": Metric(
        "The share of lines, in percent, that equal one of their references but for blanks at the ends.",
        count_exact_matches,
    ),
}
