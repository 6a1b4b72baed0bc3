"""The nearest training example: what a look-up would answer."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence


def nearest_targets(sources: Sequence[str], examples: Iterable[dict[str, str]]) -> list[str]:
    """For each source the target of the most similar training source, by cosine over words weighted by rarity.

    Words are what blanks separate; weights are tf-idf (Salton & Buckley 1988). A tie goes to the earlier example.
    """
    training = [(Counter(example["source"].split()), example["target"]) for example in examples]
    holders: dict[str, list[int]] = defaultdict(list)
    for i, (words, _) in enumerate(training):
        for word in words:
            holders[word].append(i)
    rarity = {word: math.log(1 + len(training) / len(having)) for word, having in holders.items()}
    norms = [math.sqrt(sum((n * rarity[word]) ** 2 for word, n in words.items())) for words, _ in training]
    answers = []
    for source in sources:
        products: dict[int, float] = defaultdict(float)
        for word, n in Counter(source.split()).items():
            for i in holders.get(word, ()):
                products[i] += n * training[i][0][word] * rarity[word] ** 2
        best = max(products, key=lambda i: (products[i] / norms[i], -i), default=0)
        answers.append(training[best][1])
    return answers
