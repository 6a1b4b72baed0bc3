"""A curriculum: the first epochs have only the shortest examples (Bengio et al. 2009; Platanios et al. 2019)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from seqlab.data.buckets import Buckets, batches_of
from seqlab.data.plans import BatchPlan, Plan
from seqlab.system.errors import SeqlabError


class Curriculum(NamedTuple):
    """Buckets of which the first `epochs` epochs contain only the shortest share of the examples. The share grows
    linearly: (epoch + 1) / (epochs + 1), with epochs counted from 0.

    Examples are ordered by their buckets. If only a part of a bucket belongs to the share, it is random. The batches
    of later epochs are those of the buckets alone.
    """

    plan: Buckets
    epochs: int

    @property
    def left_out(self) -> int:
        return self.plan.left_out

    @property
    def longest(self) -> int:
        return self.plan.longest

    def batches(self, seed: int, epoch: int | None) -> Sequence[BatchPlan]:
        if epoch is None or epoch >= self.epochs:
            return self.plan.batches(seed, epoch)
        return batches_of(self.plan.buckets, self.counts(epoch), seed, epoch)

    def counts(self, epoch: int) -> list[int]:
        """Returns the number of examples of each bucket in an epoch: the shortest buckets are filled first."""
        buckets = self.plan.buckets
        remaining = -(-sum(bucket.taken for bucket in buckets) * (epoch + 1) // (self.epochs + 1))
        counts = [0] * len(buckets)
        for i in sorted(range(len(buckets)), key=lambda i: sum(buckets[i].shape)):
            counts[i] = min(buckets[i].taken, remaining)
            remaining -= counts[i]
        return counts

    def describe(self) -> Iterator[str]:
        yield from self.plan.describe()
        first = sum(self.counts(0))
        yield f"curriculum: {first:,} of the shortest examples in the first epoch, all from epoch {self.epochs + 1}"


def with_curriculum(plan: Plan, epochs: int) -> Plan:
    """Returns the plan with a curriculum of some epochs; 0: the plan itself. Raises `SeqlabError` for a plan without
    several buckets.
    """
    if not epochs:
        return plan
    if not isinstance(plan, Buckets):
        raise SeqlabError(
            "batching.curriculum needs batches of examples of similar length, not packed rows or streams"
        )
    if len(plan.buckets) < 2:
        raise SeqlabError("batching.curriculum orders examples by their buckets: set batching.buckets to 2 or more")
    return Curriculum(plan, epochs)
