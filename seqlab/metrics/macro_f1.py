"""Macro-F1: the mean of the F1 scores of the classes in the references."""

from collections.abc import Sequence

import numpy as np

from seqlab.metrics.metric import LineCounts, Metric, TextLines, check_single_reference


def count_macro_f1(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    """Counts, for each line and class, whether the class is correct, predicted, and in the reference."""
    check_single_reference(references, "macro-F1")
    labels = [line.strip() for line in references[0]]
    classes = {name: i for i, name in enumerate(sorted({*labels}))}
    counts = np.zeros((len(labels), 3, len(classes)))  # right; predicted; in the reference
    for row, line, label in zip(counts, hypotheses, labels, strict=True):
        row[0, classes[label]] = line.strip() == label
        row[2, classes[label]] = 1
        if line.strip() in classes:
            row[1, classes[line.strip()]] = 1

    def values(total: np.ndarray) -> dict[str, float]:
        right, predicted, in_reference = total.reshape(3, -1)
        present = (predicted + in_reference) > 0  # a class that does not occur has no F1
        return {"macro-F1": float(100 * (2 * right[present] / (predicted + in_reference)[present]).mean())}

    signature = f"nrefs:1|lines:{len(labels)}|classes:{len(classes)}"
    return LineCounts(counts.reshape(len(labels), -1), values, signature)


METRICS: dict[str, Metric] = {
    "macro_f1": Metric("The mean F1 of the classes in the references, in percent.", count_macro_f1),
}
