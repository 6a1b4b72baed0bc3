"""The confusion matrix of a classifier's answers."""

import numpy as np
from jaxtyping import Int

from seqlab.metrics.metric import TextLines


def confusion(hypotheses: TextLines, references: TextLines) -> tuple[list[str], Int[np.ndarray, "C C"]]:
    """Returns the sorted classes, and how often each class of the references (row) was answered as each (column)."""
    pairs = [(right.strip(), line.strip()) for right, line in zip(references, hypotheses, strict=True)]
    classes = sorted({name for pair in pairs for name in pair})
    places = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), int)
    for right, line in pairs:
        counts[places[right], places[line]] += 1
    return classes, counts
