"""The contract of a reward: lines in, numbers out."""

import abc
from collections.abc import Sequence

import numpy as np


class Reward(abc.ABC):
    """A frozen dataclass, in a file of its own, which a task can have as a field."""

    @abc.abstractmethod
    def score(self, sources: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Returns a number for each text, float32 [N], given the source that it was written for."""
