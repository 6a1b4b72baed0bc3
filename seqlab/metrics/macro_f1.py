"""TODO metrics.macro_f1."""

from collections.abc import Sequence

import numpy as np

from seqlab.metrics.metric import Counted, Lines, _one_reference


def _macro_f1(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    _one_reference(references, "macro-F1")
    wanted = [line.strip() for line in references[0]]
    classes = {name: i for i, name in enumerate(sorted({*wanted}))}
    counts = np.zeros((len(wanted), 3, len(classes)))  # right; named; wanted
    for row, line, right in zip(counts, hypotheses, wanted, strict=True):
        row[0, classes[right]] = line.strip() == right
        row[2, classes[right]] = 1
        if line.strip() in classes:
            row[1, classes[line.strip()]] = 1

    def values(total: np.ndarray) -> dict[str, float]:
        right, named, wanted = total.reshape(3, -1)
        there = (named + wanted) > 0  # of a class that is nowhere nothing is known
        return {"macro-F1": float(100 * (2 * right[there] / (named + wanted)[there]).mean())}

    signature = f"nrefs:1|lines:{len(wanted)}|classes:{len(classes)}"
    return Counted(counts.reshape(len(wanted), -1), values, signature)
