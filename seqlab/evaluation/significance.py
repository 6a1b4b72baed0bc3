"""Is one system better than another, or lucky in its test set, or in its seed?"""

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from seqlab.metrics.metric import Counted

RESAMPLES = 1000  # test sets drawn anew
TRIALS = 10_000  # exchanges of the lines of two systems
TRIALS_OF_SEEDS = 1000  # the same, where each of them has several seeds


class Compared(NamedTuple):
    """A score of one system: the mean over its seeds, and their standard deviation (None of one seed); half the width
    of the 95 % interval over test sets drawn anew; the p-values of its being as good as the first system, by the
    paired bootstrap and by approximate randomization (None of the first; of several seeds there is the second alone).
    """

    name: str
    value: float
    deviation: float | None
    interval: float
    bootstrap: float | None
    randomization: float | None


def compare(systems: Sequence[Sequence[Counted]]) -> dict[str, list[Compared]]:
    """By score, how each system fares against the first; a system is what one metric has counted for each of its
    seeds, all over the same lines.

    Single seeds are compared by sacrebleu's tests (Koehn 2004; Riezler & Maxwell 2005). Where there are several, the
    randomization exchanges lines among all seeds of two systems (Clark et al. 2011, "Better hypothesis testing for
    statistical machine translation: controlling for optimizer instability").
    """
    first = systems[0][0]
    names = list(first.values(first.counts.sum(0)))
    single = all(len(seeds) == 1 for seeds in systems)
    return {name: (_by_pairs if single else _by_seeds)(systems, name) for name in names}


def _by_pairs(systems: Sequence[Sequence[Counted]], name: str) -> list[Compared]:
    from sacrebleu.significance import PairedTest

    first = systems[0][0]
    named: Any = [(str(i), seeds[0].counts) for i, seeds in enumerate(systems)]
    metrics: Any = {name: _AsAsked([seed for (seed,) in systems], name)}
    bootstraps, randomizations = (
        PairedTest(named, metrics, None, kind, count)()[1][name]
        for kind, count in (("bs", RESAMPLES), ("ar", TRIALS))
    )
    found = []
    for (seed,), drawn, shuffled in zip(systems, bootstraps, randomizations, strict=True):
        assert not isinstance(drawn, str)
        assert not isinstance(shuffled, str)
        p: list[Any] = [drawn.p_value, shuffled.p_value]
        value = score_of(seed, name)
        if seed is not first and value == score_of(first, name):
            p = [1.0, 1.0]  # everything is at least as far apart as nothing
        found.append(Compared(name, value, None, float(drawn.ci or 0.0), *p))
    return found


def score_of(counted: Counted, name: str) -> float:
    return counted.values(counted.counts.sum(0))[name]


class _AsAsked:
    """What sacrebleu's tests ask of a metric, where the lines are counted already.

    They look for what is further apart than was observed. Of hits, and of anything that few lines differ in, much is
    as far apart: a difference of one line, which all exchanges leave as it is, would be sure. So for others than its
    own metrics what was observed is told a trifle smaller.
    """

    def __init__(self, observed: Sequence[Counted], name: str):
        self.values, self.name = observed[0].values, name
        self.observed = [one.counts for one in observed if not one.sacrebleu]

    def _extract_corpus_statistics(self, counts: np.ndarray, references: None) -> np.ndarray:
        return counts

    def _aggregate_and_compute(self, counts: np.ndarray) -> Any:
        found = self._compute_score_from_stats(np.sum(counts, axis=0))
        if any(counts is one for one in self.observed):
            found.score *= 1 - 1e-9
        return found

    def _compute_score_from_stats(self, total: np.ndarray) -> Any:
        return SimpleNamespace(name=self.name, score=self.values(total)[self.name])

    def get_signature(self) -> Any:
        return SimpleNamespace(update=lambda name, value: None)


def _by_seeds(systems: Sequence[Sequence[Counted]], name: str) -> list[Compared]:
    from sacrebleu.significance import estimate_ci

    found = []
    for seeds in systems:
        values = [score_of(seed, name) for seed in seeds]
        lines = len(seeds[0].counts)
        drawn = _random().multinomial(lines, np.full(lines, 1 / lines), RESAMPLES)
        totals = [drawn @ seed.counts for seed in seeds]
        means = [
            np.mean([seed.values(total)[name] for seed, total in zip(seeds, one, strict=True)])
            for one in zip(*totals, strict=True)
        ]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        p = None if seeds is systems[0] else randomization(systems[0], seeds, name)
        found.append(
            Compared(name, float(np.mean(values)), deviation, float(estimate_ci(np.array(means))[1]), None, p)
        )
    return found


def randomization(ours: Sequence[Counted], theirs: Sequence[Counted], name: str) -> float:
    """The p-value of two systems' mean scores being as far apart as they are: the share of exchanges after which they
    are at least as far apart, all seeds' outputs for a line being dealt out anew. What was observed counts as one.
    """
    values = ours[0].values
    counts = np.stack([seed.counts for seed in (*ours, *theirs)], axis=1)  # [lines, seeds, N]

    def apart(dealt: np.ndarray) -> float:
        scores = [values(total)[name] for total in dealt.sum(0)]
        return abs(float(np.mean(scores[: len(ours)]) - np.mean(scores[len(ours) :])))

    observed, random = apart(counts), _random()
    dealt = (random.permuted(_places(counts), axis=1) for _ in range(TRIALS_OF_SEEDS))
    further = sum(apart(np.take_along_axis(counts, one[..., None], axis=1)) >= observed - 1e-9 for one in dealt)
    return (further + 1) / (TRIALS_OF_SEEDS + 1)


def _places(counts: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(counts.shape[1]), counts.shape[:2])


def _random() -> np.random.Generator:
    """With sacrebleu's seed, which may be none."""
    seed = os.environ.get("SACREBLEU_SEED", "12345")
    return np.random.default_rng(None if seed.lower() == "none" else int(seed))
