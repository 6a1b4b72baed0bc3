"""The interface of rewards, which score lines of text."""

import abc
from collections.abc import Sequence

import numpy as np


class Reward(abc.ABC):
    """The base class of rewards. A reward is a frozen dataclass in a separate file; tasks have it as a field."""

    @abc.abstractmethod
    def score(self, sources: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Returns a number for each text, float32 [N], given the source of each."""
