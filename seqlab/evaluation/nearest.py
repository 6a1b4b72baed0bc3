"""A lookup baseline: the target of the nearest training example."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np


def nearest_targets(sources: Sequence[str], examples: Iterable[dict[str, str]]) -> list[str]:
    """Returns for each source the target of the most similar training source, by the cosine of tf-idf vectors (Salton
    & Buckley 1988). Words are separated by whitespace. Ties go to the earlier example.
    """
    targets: list[str] = []
    holders: dict[str, list[tuple[int, int]]] = defaultdict(list)  # word: (example, count) pairs
    for i, example in enumerate(examples):
        targets.append(example["target"])
        for word, count in Counter(example["source"].split()).items():
            holders[word].append((i, count))
    columns = {}  # word: its examples and its weight in each
    squares = np.full(len(targets), 1e-12)  # not zero, because an example may have no words
    for word, having in holders.items():
        indices, counts = np.array(having).T
        columns[word] = indices, counts * math.log(1 + len(targets) / len(having))
        squares[indices] += columns[word][1] ** 2
    answers = []
    for source in sources:
        products = np.zeros(len(targets))
        for word, count in Counter(source.split()).items():
            if word in columns:
                indices, weights = columns[word]
                products[indices] += count * math.log(1 + len(targets) / len(indices)) * weights
        answers.append(targets[int((products / np.sqrt(squares)).argmax())])
    return answers
