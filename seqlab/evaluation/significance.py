"""Tests of significance of the difference between two systems, over test sets and seeds."""

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from seqlab.metrics.metric import LineCounts

RESAMPLES = 1000  # resampled test sets
TRIALS = 10_000  # exchanges of the lines of two systems
TRIALS_OF_SEEDS = 1000  # exchanges if systems have several seeds, or for a corpus metric


class ScoreComparison(NamedTuple):
    """A score of one system, compared with the first system.

    `value` is the mean over the seeds and `deviation` their standard deviation (None for one seed). `interval` is
    half the width of the 95 % interval over resampled test sets. `bootstrap` and `randomization` are the p-values of
    the difference from the first system, by paired bootstrap and approximate randomization. Both are None for the
    first system, and `bootstrap` is None for several seeds and for corpus metrics.
    """

    name: str
    value: float
    deviation: float | None
    interval: float
    bootstrap: float | None
    randomization: float | None


def compare(systems: Sequence[Sequence[LineCounts]]) -> dict[str, list[ScoreComparison]]:
    """Returns the comparison of each system with the first, by score. A system is the counts of one metric for each
    of its seeds, all over the same lines.

    Single seeds are compared by sacrebleu's tests (Koehn 2004; Riezler & Maxwell 2005). For several seeds, the
    randomization exchanges lines among all seeds of two systems (Clark et al. 2011, "Better hypothesis testing for
    statistical machine translation: controlling for optimizer instability"). The same test
    applies to scores that no sum of counts determines, which sacrebleu's tests do not support.
    """
    first = systems[0][0]
    by_pairs = all(len(seeds) == 1 for seeds in systems) and not first.corpus
    return {score.name: (_by_pairs if by_pairs else _by_seeds)(systems, score.name) for score in first.scores()}


def _by_pairs(systems: Sequence[Sequence[LineCounts]], name: str) -> list[ScoreComparison]:
    from sacrebleu.significance import PairedTest

    first = systems[0][0]
    named: Any = [(str(i), seeds[0].counts) for i, seeds in enumerate(systems)]
    metrics: Any = {name: _CountedMetric([seed for (seed,) in systems], name)}
    bootstraps, randomizations = (
        PairedTest(named, metrics, None, kind, count)()[1][name]
        for kind, count in (("bs", RESAMPLES), ("ar", TRIALS))
    )
    results = []
    for (seed,), bootstrap_test, randomization_test in zip(systems, bootstraps, randomizations, strict=True):
        assert not isinstance(bootstrap_test, str)
        assert not isinstance(randomization_test, str)
        p: list[Any] = [bootstrap_test.p_value, randomization_test.p_value]
        value = score_of(seed, name)
        if seed is not first and value == score_of(first, name):
            p = [1.0, 1.0]  # every difference is at least as large as zero
        results.append(ScoreComparison(name, value, None, float(bootstrap_test.ci or 0.0), *p))
    return results


def score_of(line_counts: LineCounts, name: str) -> float:
    return line_counts.values_of(line_counts.counts)[name]


class _CountedMetric:
    """The interface of a metric that sacrebleu's tests need, over counted lines.

    The tests count differences that exceed the observed one. Where few lines differ, many differences equal it: a
    difference in one line, which no exchange changes, would always be significant. So the observed score of metrics
    other than sacrebleu's is reported slightly smaller.
    """

    def __init__(self, observed: Sequence[LineCounts], name: str):
        self.values, self.name = observed[0].values, name
        self.observed = [line_counts.counts for line_counts in observed if not line_counts.sacrebleu]

    def _extract_corpus_statistics(self, counts: np.ndarray, references: None) -> np.ndarray:
        return counts

    def _aggregate_and_compute(self, counts: np.ndarray) -> Any:
        score = self._compute_score_from_stats(np.sum(counts, axis=0))
        if any(counts is observed_counts for observed_counts in self.observed):
            score.score *= 1 - 1e-9
        return score

    def _compute_score_from_stats(self, total: np.ndarray) -> Any:
        return SimpleNamespace(name=self.name, score=self.values(total)[self.name])

    def get_signature(self) -> Any:
        return SimpleNamespace(update=lambda name, value: None)


def _by_seeds(systems: Sequence[Sequence[LineCounts]], name: str) -> list[ScoreComparison]:
    from sacrebleu.significance import estimate_ci

    results = []
    for seeds in systems:
        values = [score_of(seed, name) for seed in seeds]
        lines = len(seeds[0].counts)
        drawn = _random().multinomial(lines, np.full(lines, 1 / lines), RESAMPLES)
        means = [np.mean([seed.resample(times)[name] for seed in seeds]) for times in drawn]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        p = None if seeds is systems[0] else randomization(systems[0], seeds, name)
        results.append(
            ScoreComparison(name, float(np.mean(values)), deviation, float(estimate_ci(np.array(means))[1]), None, p)
        )
    return results


def randomization(first: Sequence[LineCounts], second: Sequence[LineCounts], name: str) -> float:
    """Returns the p-value of the difference of two systems' mean scores: the share of exchanges with a difference
    that is at least as large. An exchange permutes the outputs of all seeds for each line. The observed order counts
    as one exchange.
    """
    counts = np.stack([seed.counts for seed in (*first, *second)], axis=1)  # [lines, seeds, N]

    def distance(permuted: np.ndarray) -> float:
        scores = [first[0].values_of(permuted[:, seed])[name] for seed in range(permuted.shape[1])]
        return abs(float(np.mean(scores[: len(first)]) - np.mean(scores[len(first) :])))

    observed, random = distance(counts), _random()
    permuted = (random.permuted(_places(counts), axis=1) for _ in range(TRIALS_OF_SEEDS))
    further = sum(
        distance(np.take_along_axis(counts, order[..., None], axis=1)) >= observed - 1e-9 for order in permuted
    )
    return (further + 1) / (TRIALS_OF_SEEDS + 1)


def _places(counts: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(counts.shape[1]), counts.shape[:2])


def _random() -> np.random.Generator:
    """Returns a generator with sacrebleu's seed, which may be "none"."""
    seed = os.environ.get("SACREBLEU_SEED", "12345")
    return np.random.default_rng(None if seed.lower() == "none" else int(seed))
