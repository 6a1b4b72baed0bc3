"""Span F1: precision and recall of labeled spans of words, as in the shared task CoNLL-2000."""

import re
from collections.abc import Sequence

import numpy as np

from seqlab.metrics.metric import LineCounts, Metric, TextLines, check_single_reference

Span = tuple[str, int, int]  # its label, its first word, and the word after its last


def spans_of(tags: Sequence[str]) -> set[Span]:
    """Returns the spans of tags such as B-city, I-city and O, or B, I and O.

    A span begins at a B tag, and at an I tag that does not continue a span with the same label, as in conlleval.
    """
    spans: set[Span] = set()
    begin, current = 0, None
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, label = tag.partition("-")
        if current is not None and not (prefix == "I" and label == current):
            spans.add((current, begin, i))
            current = None
        if prefix in ("B", "I") and current is None:
            begin, current = i, label
    return spans


def count_spans(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    """Counts, for each line, the spans that are correct, predicted, and in the reference."""
    check_single_reference(references, "span F1")
    counts = np.zeros((len(hypotheses), 3))
    for row, line, reference in zip(counts, hypotheses, references[0], strict=True):
        predicted, expected = (spans_of(re.split(r"\s+", text.strip())) for text in (line, reference))
        row[:] = len(predicted & expected), len(predicted), len(expected)

    def values(total: np.ndarray) -> dict[str, float]:
        correct, predicted, expected = total.tolist()
        return {"span F1": 100 * 2 * correct / max(predicted + expected, 1.0)}

    return LineCounts(counts, values, f"nrefs:1|lines:{len(counts)}|tags:BIO")


METRICS: dict[str, Metric] = {
    "span_f1": Metric("The F1 of labeled spans, given BIO tags, in percent.", count_spans),
}
