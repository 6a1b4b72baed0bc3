"""Tests of significance, compared with sacrebleu's and with all possible exchanges."""

import itertools

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from seqlab.evaluation import significance
from seqlab.evaluation.significance import compare, randomization
from seqlab.metrics.registry import count

TRIALS = 400
WORDS = "the a dog cat runs sleeps red blue house snow , .".split()


def corpus(seed, lines, wrong=0.0, base=None):
    """Returns sentences, or those of `base` with some words replaced."""
    random = np.random.default_rng(seed)
    base = base or [random.choice(WORDS, random.integers(0, 9)).tolist() for _ in range(lines)]
    return [[random.choice(WORDS) if random.random() < wrong else word for word in line] for line in base]


def texts(lines):
    return [" ".join(line) for line in lines]


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    """Reduces the number of resamples and trials."""
    for name, value in (("RESAMPLES", 200), ("TRIALS", 500), ("TRIALS_OF_SEEDS", TRIALS)):
        monkeypatch.setattr(significance, name, value)


@pytest.fixture(scope="module")
def systems():
    """References, and systems: one clearly worse than the first, one slightly worse, and one equal."""
    reference = corpus(0, 60)
    result = [corpus(n, 60, wrong, reference) for n, wrong in ((1, 0.2), (2, 0.5), (3, 0.22), (1, 0.2))]
    return texts(reference), [texts(lines) for lines in result]


@pytest.mark.parametrize(("name", "make"), [("bleu", BLEU), ("chrf", CHRF), ("ter", TER)])
def test_as_sacrebleu(systems, name, make):
    reference, hypotheses = systems
    (result,) = compare([[count(name, lines, [reference])] for lines in hypotheses]).values()
    named = [(str(i), lines) for i, lines in enumerate(hypotheses)]
    for kind, field in (("bs", "bootstrap"), ("ar", "randomization")):
        results = PairedTest(named, {name: make()}, [reference], kind, {"bs": 200, "ar": 500}[kind])()[1]
        results = results[next(label for label in results if label != "System")]
        for computed, reference_result in zip(result[:3], results[:3], strict=True):
            assert computed.value == reference_result.score
            assert getattr(computed, field) == reference_result.p_value
            if kind == "bs":
                assert computed.interval == pytest.approx(
                    reference_result.ci, rel=1e-5
                )  # sacrebleu counts in float32
    assert result[1].randomization < 0.05 < result[2].randomization
    assert (result[3].bootstrap, result[3].randomization) == (1.0, 1.0)  # the same texts


def test_means_are_tested_as_corpus_scores_are(systems, monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 2000)
    reference, hypotheses = systems
    result = compare([[count("rouge", lines, [reference])] for lines in hypotheses])
    assert list(result) == ["ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"]
    first, worse, close, same = result["ROUGE-1"]
    assert worse.randomization < 0.01 < close.randomization
    assert worse.bootstrap < 0.01 < close.bootstrap
    assert same.randomization == 1.0
    # Half of the 95 % interval of a mean, from its standard error.
    values = count("rouge", hypotheses[0], [reference]).counts[:, 0]
    assert first.interval == pytest.approx(1.96 * values.std() / len(values) ** 0.5, rel=0.15)


def test_randomization_against_all_exchanges():
    """Two systems with two seeds and three lines each: all exchanges are enumerated."""
    random = np.random.default_rng(4)
    first, second = (
        [count("mse", [f"{x:.3f}" for x in row], [["0"] * 3]) for row in random.normal(size=(2, 3)) + shift]
        for shift in (0.0, 1.0)
    )
    values = np.stack([counts.counts[:, 0] for counts in (*first, *second)])  # [4, 3]
    deals = list(itertools.permutations(range(4)))

    def apart(rows):
        return abs(rows[:2].mean() - rows[2:].mean())

    observed = apart(values)
    share = np.mean([
        apart(np.stack([values[list(deal), i] for i, deal in enumerate(dealt)], axis=1)) >= observed - 1e-9
        for dealt in itertools.product(deals, repeat=3)
    ])  # fmt: skip
    result = randomization(first, second, "mean squared error")
    assert abs(result - share) < 4 * (share * (1 - share) / TRIALS) ** 0.5 + 1 / TRIALS


def test_seeds(systems):
    reference, (good, bad, close, _) = systems
    first, second, more = (
        [count("chrf", lines, [reference]) for lines in seeds] for seeds in ([good, close], [bad, bad], [close, good])
    )
    (result,) = compare([first, second, more]).values()
    values = [seed.scores()[0].value for seed in first]
    assert result[0].value == pytest.approx(np.mean(values))
    assert result[0].deviation == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert result[1].deviation == 0.0
    assert result[1].bootstrap is None
    assert result[1].randomization < 0.02
    assert result[2].randomization == 1.0  # the same seeds in another order: every difference is at least as large
    # A single seed against several.
    (mixed,) = compare([first[:1], second]).values()
    assert mixed[0].deviation is None
    assert mixed[0].interval > 0
    assert mixed[1].randomization < 0.02


def test_scores_of_a_corpus(monkeypatch):
    """A correlation has no sum of counts: its lines are resampled and exchanged."""
    monkeypatch.setattr(significance, "TRIALS_OF_SEEDS", 300)
    random = np.random.default_rng(2)
    expected = random.normal(size=60)
    systems = [expected + noise * random.normal(size=60) for noise in (0.5, 3.0, 0.5)]
    reference = [f"{x:.4f}" for x in expected]
    counts = [[count("pearson", [f"{x:.4f}" for x in system], [reference])] for system in systems]
    ((name, (first, worse, close)),) = compare(counts).items()
    assert name == "Pearson"
    values = [100 * np.corrcoef(system, expected)[0, 1] for system in systems]
    assert [first.value, worse.value, close.value] == pytest.approx(values, abs=0.01)
    assert worse.randomization < 0.01 < close.randomization
    assert first.randomization is worse.bootstrap is None
    assert first.interval == pytest.approx(100 * 1.96 * (1 - (first.value / 100) ** 2) / 60**0.5, rel=0.4)


def test_no_difference_that_is_only_luck():
    """For pairs of equally good systems, p is below 0.05 in one of twenty cases."""
    random, result = np.random.default_rng(0), []
    for _ in range(40):
        pair = [count("mse", [f"{x:.3f}" for x in random.normal(size=25)], [["0"] * 25]) for _ in range(2)]
        result.append(randomization(pair[:1], pair[1:], "mean squared error"))
    assert np.mean(np.array(result) < 0.05) <= 0.15
    assert 0.25 <= np.mean(np.array(result) < 0.5) <= 0.75


@pytest.mark.parametrize("differ", [0, 1, 2])
def test_ties_are_as_far_apart(differ):
    """For two classifiers that differ in few lines, at least half of all exchanges differ as much."""
    wanted = ["a"] * 40
    changed = ["b"] * differ + wanted[differ:]
    first, second = (count("accuracy", lines, [wanted]) for lines in (wanted, changed))
    (result,) = compare([[first], [second]]).values()
    assert result[1].randomization == pytest.approx([1, 1, 0.5][differ], abs=0.08)
    assert randomization([first], [second], "accuracy") == pytest.approx(result[1].randomization, abs=0.12)


def test_no_seed(systems, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "None")
    reference, hypotheses = systems
    counted = [count("exact_match", lines, [reference]) for lines in hypotheses[:2]]
    (result,) = compare([counted, counted[:1]]).values()
    assert 0 < result[1].randomization <= 1
