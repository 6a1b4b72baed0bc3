"""A curriculum: the first epochs have only the easiest examples (Bengio et al. 2009; Platanios et al. 2019)."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seqlab.codecs.numbers import Numbers
from seqlab.config import Batching
from seqlab.data.buckets import Buckets, Group, batches_of
from seqlab.data.corpus import Corpus, encode_split
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.records import PreparedData
from seqlab.system.errors import SeqlabError


class Curriculum(NamedTuple):
    """Buckets of which the first `epochs` epochs contain only the easiest share of the examples. The share grows
    linearly: (epoch + 1) / (epochs + 1), with epochs counted from 0.

    Examples are ordered by their `scores` [examples], the lowest first, or if these are None by their buckets, the
    shortest first. If the share ends within a bucket, a random part of that bucket is used. The batches of
    later epochs are those of the buckets alone.
    """

    plan: Buckets
    epochs: int
    scores: Float[np.ndarray, "N"] | None = None

    @property
    def left_out(self) -> int:
        return self.plan.left_out

    @property
    def longest(self) -> int:
        return self.plan.longest

    def batches(self, seed: int, epoch: int | None) -> Sequence[BatchPlan]:
        if epoch is None or epoch >= self.epochs:
            return self.plan.batches(seed, epoch)
        if self.scores is not None:
            return self.easiest(self.scores, epoch).batches(seed, epoch)
        return batches_of(self.plan.buckets, self.counts(epoch), seed, epoch)

    def share(self, count: int, epoch: int) -> int:
        """Returns the number of examples in an epoch, of `count` in total."""
        return -(-count * (epoch + 1) // (self.epochs + 1))

    def counts(self, epoch: int) -> list[int]:
        """Returns the number of examples of each bucket in an epoch: the shortest buckets are filled first."""
        buckets = self.plan.buckets
        remaining = self.share(sum(bucket.taken for bucket in buckets), epoch)
        counts = [0] * len(buckets)
        for i in sorted(range(len(buckets)), key=lambda i: sum(buckets[i].shape)):
            counts[i] = min(buckets[i].taken, remaining)
            remaining -= counts[i]
        return counts

    def easiest(self, scores: Float[np.ndarray, "N"], epoch: int) -> Buckets:
        """Returns the buckets with only the examples of an epoch: those with the lowest scores, and of equal scores
        the first in the data. Groups keep their rates.
        """
        usable = np.sort(np.concatenate([group.members for bucket in self.plan.buckets for group in bucket.groups]))
        chosen = np.zeros(len(scores), bool)
        chosen[usable[np.argsort(scores[usable], kind="stable")][: self.share(len(usable), epoch)]] = True
        buckets = [
            bucket._replace(groups=groups)
            for bucket in self.plan.buckets
            if (groups := [part for group in bucket.groups if len((part := chosen_part(group, chosen)).members)])
        ]
        return self.plan._replace(buckets=buckets)

    def describe(self) -> Iterator[str]:
        yield from self.plan.describe()
        if self.scores is None:
            first, kind = sum(self.counts(0)), "shortest"
        else:
            first, kind = sum(bucket.taken for bucket in self.easiest(self.scores, 0).buckets), "easiest"
        yield f"curriculum: {first:,} of the {kind} examples in the first epoch, all from epoch {self.epochs + 1}"


def chosen_part(group: Group, chosen: np.ndarray) -> Group:
    """Returns the chosen members of a group, taken at its rate."""
    members = group.members[chosen[group.members]]
    return Group(members, max(round(group.taken * len(members) / len(group.members)), 1))


def with_curriculum(plan: Plan, batching: Batching, corpus: Corpus) -> Plan:
    """Returns the plan with the curriculum of `batching`, if it has one. Raises `SeqlabError` for a plan that has no
    order, and for scores that are not one number for each example of the corpus.
    """
    epochs, column = batching.curriculum, batching.difficulty
    if not epochs:
        if column:
            raise SeqlabError("batching.difficulty needs the number of epochs of a curriculum: batching.curriculum")
        return plan
    if not isinstance(plan, Buckets):
        raise SeqlabError(
            "batching.curriculum needs batches of examples of similar length, not packed rows or streams"
        )
    if column:
        return Curriculum(plan, epochs, scores_in(corpus, column))
    if len(plan.buckets) < 2:
        raise SeqlabError("batching.curriculum orders examples by their buckets: set batching.buckets to 2 or more")
    return Curriculum(plan, epochs)


def scores_in(corpus: Corpus, column: str) -> Float[np.ndarray, "N"]:
    """Returns the scores of the examples. Raises `SeqlabError` unless each example has one number."""
    malformed_indices = np.flatnonzero(corpus.lengths(column) != 1)
    if corpus.values[column].dtype.kind != "f" or corpus.values[column].ndim > 1 or len(malformed_indices):
        place = f"example {malformed_indices[0] + 1} of " if len(malformed_indices) else ""
        raise SeqlabError(f"batching.difficulty: {place}the column {column!r} must have one number for each example")
    return corpus.values[column]


def with_scores(corpus: Corpus, column: str, data: PreparedData, data_dir: Path) -> Corpus:
    """Returns the corpus of the training split with a further column of numbers, from the cache."""
    if column in corpus.values:
        return corpus
    scores = encode_split(data, "train", {column: Numbers()}, data_dir)
    return dataclasses.replace(corpus, values=corpus.values | scores.values, offsets=corpus.offsets | scores.offsets)
