"""The interface of rewards, which score lines of text."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlab.system.errors import SeqlabError


class Reward(abc.ABC):
    """The base class of rewards. A reward is a frozen dataclass in a separate file; tasks have it as a field."""

    @abc.abstractmethod
    def score(self, sources: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Returns a number for each text, float32 [N], given the source of each."""


def rewards_of(reward: Reward, sources: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Returns the rewards of texts, float32 [N]. Raises `SeqlabError` unless each text has a finite number."""
    values: Any = reward.score(sources, texts)
    name = f"{type(reward).__name__}.score"
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.shape != (len(texts),):
        kind = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise SeqlabError(f"{name} must return a number for each of the {len(texts)} texts, not {kind}")
    if not np.isfinite(values).all():
        raise SeqlabError(f"{name} returns numbers that are not finite")
    return values.astype(np.float32)
