"""The learning-rate range test."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from seqlab.config import Optimizer
from seqlab.evaluation.diagnosis.updates import run_steps
from seqlab.training.optimizer import NO_FACTORS, optimizer_at
from seqlab.training.step import LossFunction
from seqlab.types import Batch, TrainState

LOWEST, HIGHEST = 1e-7, 10.0  # rates of the range test
RATES = 100  # number of rates; each is larger by a fifth than the one before
BLOWN_UP = 4.0  # the range test ends at this multiple of the lowest loss
RISE = 0.1  # share of the total fall of the loss that counts as a rise
WINDOW = 5  # number of losses in a moving average


def range_test(
    loss: LossFunction,
    optimizer: Optimizer,
    seed: int,
    state: TrainState,
    batches: Iterator[Batch],
    factors: Mapping[str, float] = NO_FACTORS,
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Returns learning rates that grow by a constant factor in each step, and the losses at them (Smith 2017, section
    3.3), until the loss blows up. `factors` multiply the rates of parameters, by path.
    """
    growth = (HIGHEST / LOWEST) ** (1 / (RATES - 1))
    steps = run_steps(
        loss, optimizer_at(optimizer, lambda t: LOWEST * growth**t, factors), seed, state, batches, RATES,
        lambda losses: usable(losses) < len(losses), optimizer.trainable,
    )  # fmt: skip
    return LOWEST * growth ** np.arange(len(steps.losses)), steps.losses


def smooth(losses: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Returns the mean of the `WINDOW` losses around each loss; at the ends, of those that exist."""
    sums, counts = (np.convolve(x, np.ones(WINDOW)) for x in (losses, np.ones(len(losses))))
    return (sums / counts)[WINDOW // 2 :][: len(losses)]


def usable(losses: Float[np.ndarray, "N"]) -> int:
    """Returns the number of losses before one is not finite or the smoothed loss is far above its minimum."""
    finite = int(np.argmin(np.append(np.isfinite(losses), False)))
    if not finite:
        return 0
    smoothed = smooth(losses[:finite])
    over = smoothed > BLOWN_UP * np.minimum.accumulate(smoothed)
    return int(over.argmax()) if over.any() else finite


def suggest(rates: Float[np.ndarray, "N"], losses: Float[np.ndarray, "N"]) -> dict[str, Any]:
    """Returns from a range test the rate at which the smoothed loss falls most steeply over the logarithm of the
    rate, and the highest rate before it rises; None for a loss that does not fall.
    """
    count = usable(losses)
    result = {"rates": rates, "losses": losses, "smoothed": smooth(losses[:count]) if count else losses[:0]}
    lowest = lowest_before_rise(result["smoothed"]) if count else 0
    if not lowest:
        return {**result, "steepest": None, "highest": None}
    slopes = smooth(np.gradient(result["smoothed"], np.log(rates[:count])))
    return {**result, "steepest": float(rates[slopes[: lowest + 1].argmin()]), "highest": float(rates[lowest])}


def lowest_before_rise(smoothed: Float[np.ndarray, "N"]) -> int:
    """Returns the index of the minimum before the first rise. A rise counts after half of the fall: earlier, noise is
    large.
    """
    fall, lowest = smoothed[0] - smoothed.min(), np.minimum.accumulate(smoothed)
    risen = (smoothed - lowest > RISE * fall) & (smoothed[0] - lowest > fall / 2)
    return int(smoothed[: risen.argmax() if risen.any() else None].argmin())
