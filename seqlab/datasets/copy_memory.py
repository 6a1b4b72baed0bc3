"""The copying memory task (Hochreiter & Schmidhuber 1997): repeat ten symbols after a delay.

As in Bai et al. (2018, section 4), a sequence consists of ten symbols from 1 to 8, `delay` - 1 zeros, and eleven 9s.
The labels are zeros, followed by the ten symbols at the last ten positions. A model without memory has a
cross-entropy of 10 ln 8 / (delay + 20).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from seqlab.data.records import generate_splits
from seqlab.system.errors import SeqlabError

SYMBOLS = 10


@dataclass(frozen=True)
class CopyMemory:
    delay: int = 500
    """Number of blanks between the symbols and the request to repeat them."""
    train: int = 10_000
    """Number of training examples."""
    validation: int = 1_000
    """Number of validation examples."""
    test: int = 1_000
    """Number of test examples."""
    seed: int = 0
    """Random seed of the examples."""

    def __post_init__(self) -> None:
        if min(self.delay, self.train, self.validation, self.test) < 1:
            raise SeqlabError("copy_memory needs a delay of at least 1 and at least 1 example in each split")

    def key(self) -> str:
        return f"copy_memory/{self.delay}-{self.train}-{self.validation}-{self.test}-{self.seed}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        return generate_splits(self)

    def examples(self, rng: np.random.Generator, count: int) -> Iterator[dict[str, str]]:
        for _ in range(count):
            said = " ".join(map(str, rng.integers(1, 9, SYMBOLS)))
            wait = " 0" * (self.delay - 1) + " 9" * (SYMBOLS + 1)
            yield {"source": said + wait, "label": "0 " * (self.delay + SYMBOLS) + said}


DATASET = CopyMemory
