"""Is one set of answers better than another, or lucky in its test set?"""

import numpy as np
from jaxtyping import Float

SAMPLES = 1000


def paired_bootstrap(ours: Float[np.ndarray, "lines"], theirs: Float[np.ndarray, "lines"], seed: int = 0) -> float:
    """The p-value of "ours has the higher mean": the share of test sets, drawn anew with replacement from the lines,
    in which it has not (Koehn 2004, "Statistical significance tests for machine translation evaluation").

    The observed test set counts as one of them, so the smallest value is 1 / (SAMPLES + 1).
    """
    gains = ours - theirs
    random = np.random.default_rng(seed)
    drawn = np.array([gains[random.integers(len(gains), size=len(gains))].mean() for _ in range(SAMPLES)])
    return float(((drawn <= 0).sum() + 1) / (SAMPLES + 1))
