"""A curriculum: epochs begin with short examples, or with those that have low scores."""

import dataclasses

import numpy as np
import pytest

from seqlab import catalogue
from seqlab.config import Batching, Schedule
from seqlab.data.buckets import make_buckets
from seqlab.data.corpus import Corpus
from seqlab.data.curriculum import Curriculum, scores_in, with_curriculum
from seqlab.data.packing import Packing
from seqlab.laws.tasks import tiny_corpus
from seqlab.laws.training import tiny_experiment
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.training.prepare import plan_batches, prepare_experiment
from tests.proofs.runs import quiet, small
from tests.transfer.splits import splits_of, write_splits

LENGTHS = np.random.default_rng(0).integers(1, 60, (500, 1))
SCORES = np.random.default_rng(1).integers(0, 40, 500).astype(np.float32)
CORPUS = Corpus({"score": SCORES}, {"score": np.arange(501)})


def plan_of(epochs, parts=(), **changes):
    batching = Batching(tokens=200, buckets=4, max_length=60, curriculum=epochs, **changes)
    buckets = make_buckets(LENGTHS, batching, parts)
    return with_curriculum(buckets, batching, CORPUS), buckets


def examples_of(plan, epoch, seed=5):
    return np.concatenate([batch.indices for batch in plan.batches(seed, epoch)])


def test_a_curriculum_starts_with_short_examples():
    """An epoch has its share of the examples, once each, and none that is longer than the bucket that fills it."""
    plan, buckets = plan_of(3)
    previous = 0
    for epoch in range(3):
        examples = examples_of(plan, epoch)
        assert len(examples) == len({*examples.tolist()}) == -(-500 * (epoch + 1) // 4)
        limits = sorted(bucket.shape[0] for bucket in buckets.buckets)
        sizes = np.searchsorted(limits, LENGTHS[:, 0])  # the bucket of each example
        counts, chosen = np.bincount(sizes, minlength=4), np.bincount(sizes[examples], minlength=4)
        last = int(np.flatnonzero(chosen)[-1])
        np.testing.assert_array_equal(chosen[:last], counts[:last])
        assert LENGTHS[examples].mean() > previous
        previous = LENGTHS[examples].mean()
    for epoch in (3, 4, None):
        for batch, expected in zip(plan.batches(5, epoch), buckets.batches(5, epoch), strict=True):
            np.testing.assert_array_equal(batch.indices, expected.indices)
            assert batch.shape == expected.shape


def test_a_curriculum_is_a_pure_function_of_seed_and_epoch():
    plan, _ = plan_of(3)
    np.testing.assert_array_equal(examples_of(plan, 1), examples_of(plan_of(3)[0], 1))
    assert not np.array_equal(examples_of(plan, 1), examples_of(plan, 1, seed=6))
    batches = plan.batches(5, 1)
    in_reverse = [batches[i] for i in reversed(range(len(batches)))]
    for batch, repeated in zip(batches, reversed(in_reverse), strict=True):
        np.testing.assert_array_equal(batch.indices, repeated.indices)
    assert (
        list(plan.describe())[-1] == "curriculum: 125 of the shortest examples in the first epoch, all from epoch 4"
    )
    assert (plan.longest, plan.left_out) == (plan.plan.longest, plan.plan.left_out)


def test_plans_without_an_order_are_refused():
    packing = Packing(np.zeros(0, np.int64), np.zeros(1, np.int64), 4, 1, 0, 0)
    with pytest.raises(SeqlabError, match="batching.curriculum needs batches of examples of similar length, not"):
        with_curriculum(packing, Batching(curriculum=2), CORPUS)
    assert with_curriculum(packing, Batching(), CORPUS) is packing
    with pytest.raises(SeqlabError, match="batching.difficulty needs the number of epochs of a curriculum"):
        with_curriculum(packing, Batching(difficulty="score"), CORPUS)
    single_bucket = make_buckets(LENGTHS, Batching(tokens=200, buckets=1, max_length=60))
    with pytest.raises(
        SeqlabError, match="batching.curriculum orders examples by their buckets: set batching.bucket"
    ):
        with_curriculum(single_bucket, Batching(curriculum=2), CORPUS)
    assert isinstance(with_curriculum(single_bucket, Batching(curriculum=2, difficulty="score"), CORPUS), Curriculum)


def test_a_curriculum_by_scores_starts_with_the_lowest():
    """An epoch has its share of the examples, those with the lowest scores, once each."""
    plan, buckets = plan_of(3, difficulty="score")
    order = np.argsort(SCORES, kind="stable")
    rows_of_shape = {bucket.shape: bucket.rows for bucket in buckets.buckets}
    for epoch in range(3):
        easiest = order[: -(-500 * (epoch + 1) // 4)]
        np.testing.assert_array_equal(np.sort(examples_of(plan, epoch)), np.sort(easiest))
        for batch in plan.batches(5, epoch):
            assert rows_of_shape[batch.shape] == batch.row_count
            assert (LENGTHS[batch.indices] <= batch.shape).all()
    assert not np.array_equal(examples_of(plan, 1), examples_of(plan, 1, seed=6))
    for epoch in (3, None):
        np.testing.assert_array_equal(examples_of(plan, epoch), examples_of(buckets, epoch))
    last = list(plan.describe())[-1]
    assert last == "curriculum: 125 of the easiest examples in the first epoch, all from epoch 4"


def test_a_curriculum_by_scores_keeps_the_rates_of_a_mixture():
    plan, _ = plan_of(1, ((400, 1.0), (100, 1.0)), difficulty="score")
    easiest = np.argsort(SCORES, kind="stable")[:250]
    counts = np.bincount(examples_of(plan, 0), minlength=500)
    assert {*np.flatnonzero(counts)} <= {*easiest}
    first, second = counts[:400].sum(), counts[400:].sum()
    assert first / (easiest < 400).sum() == pytest.approx(500 / 2 / 400, rel=0.05)
    assert second / (easiest >= 400).sum() == pytest.approx(500 / 2 / 100, rel=0.05)


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        (SCORES, np.r_[0, 0, 2:501], "example 1 of the column 'score' must have one number"),
        (np.zeros(500, np.int32), np.arange(501), "batching.difficulty: the column 'score' must have one number"),
    ],
)
def test_scores_are_numbers(values, offsets, message):
    with pytest.raises(SeqlabError, match=message):
        scores_in(Corpus({"score": values}, {"score": offsets}), "score")


def test_training_reads_the_scores(tmp_path):
    """The scores are those of the examples, and are not part of a batch."""
    scores = [str(7 * i % 12 / 4) for i in range(12)]

    def row(i):
        return {"text": "a b " * (1 + i % 7), "mood": "xy"[i % 2], "hard": scores[i]}

    write_splits(tmp_path, row, (12, 12, 12))
    data = splits_of(tmp_path, source="text", label="mood", further_columns=(("hard", "hard"),))
    model = catalogue.without_sizes(catalogue.module("models", "classifier_head").TINY)
    batching = Batching(tokens=60, buckets=3, curriculum=2, difficulty="hard")
    experiment = small(model, Classification(), data, batching=batching)
    prepared = prepare_experiment(experiment, tmp_path / "data", tmp_path / "run", say=quiet)
    plan = plan_batches(prepared.experiment, prepared.corpus, quiet)
    assert {*examples_of(plan, 0).tolist()} == {*np.argsort(np.float32(scores), kind="stable")[:4].tolist()}
    changed = dataclasses.replace(experiment, batching=dataclasses.replace(batching, difficulty="easy"))
    with pytest.raises(SeqlabError, match="batching.difficulty needs the column 'easy', but the columns of the data"):
        prepare_experiment(changed, tmp_path / "data", tmp_path / "run", say=quiet)
    texts = dataclasses.replace(experiment, batching=dataclasses.replace(batching, difficulty="source"))
    prepared = prepare_experiment(texts, tmp_path / "data", tmp_path / "run", say=quiet)
    with pytest.raises(SeqlabError, match="the column 'source' must have one number for each example"):
        plan_batches(prepared.experiment, prepared.corpus, quiet)


def test_training_uses_the_curriculum():
    task = Classification()
    corpus, *_ = tiny_corpus(task)
    head = catalogue.module("models", "classifier_head").TINY
    experiment = dataclasses.replace(
        tiny_experiment(), model=head, task=task, schedule=Schedule(warmup=0),
        batching=Batching(tokens=60, buckets=3, curriculum=2),
    )  # fmt: skip
    plan = plan_batches(experiment, corpus, quiet)
    assert isinstance(plan, Curriculum)
    assert plan.epochs == 2
