"""The F1 of the words of answers, as in SQuAD (Rajpurkar et al. 2016; 2018 for empty answers)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from seqlab.metrics.metric import LineCounts, Metric, TextLines, count_means

PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized_words(text: str) -> list[str]:
    """Returns the words of a text in lower case, without ASCII punctuation and English articles."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split()


def f1_of(line: str, reference: str) -> float:
    """Returns the F1 of the words of a line. Two texts without words are equal."""
    words, expected = normalized_words(line), normalized_words(reference)
    if not words or not expected:
        return float(words == expected)
    return 2 * sum((Counter(words) & Counter(expected)).values()) / (len(words) + len(expected))


def count_word_f1(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
    """Counts the F1 of each line, times 100, for the best of its references."""
    pairs = zip(hypotheses, *references, strict=True)
    rows = 100 * np.array([[max(f1_of(line, reference) for reference in refs)] for line, *refs in pairs])
    return count_means(rows, ["word F1"], f"nrefs:{len(references)}|case:lc|punctuation:no|articles:no")


METRICS: dict[str, Metric] = {
    "word_f1": Metric(
        "The mean F1 of words over lines, in percent, after the normalization of SQuAD, for English.", count_word_f1
    ),
}
