"""Measurements of a stretch of steps, between two lines of the log."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from seqlab.training.step import STEP_SUMS
from seqlab.types import has_mask

STANDARD_SUMS = (*STEP_SUMS, "nll", "correct")  # others are metrics of the task


class Stretch(NamedTuple):
    """The measurements of a stretch of steps."""

    tokens_per_second: float
    shares: dict[str, float]
    """The fraction of padding in the inputs, and the fraction of time spent waiting for input."""


@dataclasses.dataclass
class StretchMeter:
    """Measures the stretch of steps since the log was last written."""

    earlier_tokens: float
    """The number of tokens of this stretch that an earlier process trained on."""
    started: float = dataclasses.field(default_factory=time.perf_counter)
    """The time at which the stretch began, plus the duration of its pauses."""
    waited: float = 0.0
    """The time spent waiting for input, in seconds."""
    pads: float = 0.0
    """The number of padding positions in the inputs and prefixes."""
    positions: float = 0.0
    """The total number of positions in the inputs and prefixes."""

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        """Counts the duration of the block as time spent waiting for input."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the duration of the block from the measured time."""
        start = time.perf_counter()
        yield
        self.started += time.perf_counter() - start

    def count_padding(self, batch: Any) -> None:
        """Counts the padding and all positions in the parts of a batch that have a mask."""
        for side in jax.tree.leaves(batch, is_leaf=has_mask):
            if has_mask(side):
                self.pads += side.mask.size - np.count_nonzero(side.mask)
                self.positions += side.mask.size

    def end(self, tokens: Any) -> Stretch:
        """Ends the stretch, which has `tokens` tokens in total, and starts the next one."""
        now = time.perf_counter()
        seconds = now - self.started
        shares = {"padding": self.pads / max(self.positions, 1.0), "input wait": self.waited / seconds}
        speed = (float(tokens) - self.earlier_tokens) / seconds
        self.earlier_tokens, self.started = 0.0, now
        self.waited = self.pads = self.positions = 0.0
        return Stretch(speed, shares)


def training_metrics(sums: dict[str, jax.Array]) -> dict[str, float]:
    """Returns the mean metrics of a stretch of steps from their sums."""
    totals = {name: float(value) for name, value in sums.items()}
    weight = max(totals["weight"], 1.0)
    if not totals["steps"]:  # all updates were skipped
        return {}
    values = {"loss": totals["loss"] / weight}
    if "nll" in totals:  # without label smoothing, like the validation loss
        values = {"loss": totals["nll"] / weight, "perplexity": perplexity(totals["nll"] / weight)}
    values |= {name: value / weight for name, value in totals.items() if name not in STANDARD_SUMS}
    return {**values, "gradient norm": totals["gradient_norm"] / totals["steps"]}


def perplexity(nll: float) -> float:
    return math.exp(min(nll, 700.0))
