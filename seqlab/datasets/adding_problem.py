"""The adding problem (Hochreiter & Schmidhuber 1997; as in Le et al. 2015): the sum of two marked numbers.

Each position has a number, drawn uniformly from [0, 1), and a mark, which is 1 at one position in each half and 0
elsewhere. Always predicting 1 has a mean squared error of 1/6 = 0.1667.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from seqlab.data.records import generate_splits
from seqlab.system.errors import SeqlabError


@dataclass(frozen=True)
class AddingProblem:
    length: int = 200
    """Length of a sequence."""
    train: int = 50_000
    """Number of training examples."""
    validation: int = 1_000
    """Number of validation examples."""
    test: int = 1_000
    """Number of test examples."""
    seed: int = 0
    """Random seed of the examples."""

    def __post_init__(self) -> None:
        if self.length < 2 or min(self.train, self.validation, self.test) < 1:
            raise SeqlabError("adding_problem needs a length of at least 2 and at least 1 example in each split")

    def key(self) -> str:
        return f"adding_problem/{self.length}-{self.train}-{self.validation}-{self.test}-{self.seed}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        return generate_splits(self)

    def examples(self, rng: np.random.Generator, count: int) -> Iterator[dict[str, str]]:
        half = self.length // 2
        for _ in range(count):
            values = rng.random(self.length).round(4)
            marked = [int(rng.integers(half)), int(rng.integers(half, self.length))]
            marks = np.zeros(self.length, int)
            marks[marked] = 1
            source = " ".join(f"{value:.4f} {mark}" for value, mark in zip(values, marks, strict=True))
            yield {"source": source, "target": f"{values[marked].sum():.4f}"}


DATASET = AddingProblem
