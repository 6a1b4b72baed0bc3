"""Cached batch plans: a plan is computed once per corpus and then read from a memory map."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seqlab.config import Batching
from seqlab.data.buckets import Bucket, Buckets, Group, make_buckets
from seqlab.data.corpus import Corpus
from seqlab.data.packing import Packing
from seqlab.data.plans import Plan
from seqlab.data.task import Task
from seqlab.system.errors import SeqlabError
from seqlab.system.files import make_folder_once
from seqlab.system.untrusted import fits, read_json

VERSION = 2  # increment when the same lengths give different buckets, so that cached plans are rebuilt
MAX_TAKEN = 1 << 40  # examples of a bucket per epoch; their positions in all epochs must fit into 64 bits


def load_or_make_plan(
    folder: Path, make: Callable[[], Buckets | Packing], batching: Batching, examples: int
) -> Buckets | Packing:
    """Returns the plan that `make` computes for a number of `examples`. It is computed once and then read from
    `folder` as memory maps. Raises `SeqlabError` for a damaged plan, or one whose batches `batching` does not allow.
    """
    make_folder_once(folder, lambda part: save_plan(make(), part))
    plan = load_plan(folder)
    if plan is None or not is_possible(plan, batching, examples):
        raise SeqlabError(f"{folder}: damaged plan; remove it, and it will be rebuilt")
    return plan


PACKING = {"length": int, "rows": int, "left_out": int, "used": int}  # the fields of plan.json, and their types
BUCKETS = {"buckets": list[tuple[list[int], int, list[int], int]], "too_long": int, "lopsided": int}


def load_plan(folder: Path) -> Buckets | Packing | None:
    """Returns the plan that `save_plan` wrote, or None if it is malformed."""
    try:
        facts, path = read_json(folder / "plan.json", dict[str, Any]), folder / "arrays"
    except SeqlabError:
        return None
    sizes = facts.pop("sizes", None)
    form = BUCKETS if "buckets" in facts else PACKING
    if facts.keys() != form.keys() or not all(fits(facts[name], kind) for name, kind in form.items()):
        return None
    size = path.stat().st_size if path.is_file() else -1
    count = sum(len(groups) for _, _, groups, _ in facts["buckets"]) if "buckets" in facts else 2
    if not (fits(sizes, list[int]) and len(sizes) == count and min(sizes, default=0) >= 0 and 8 * sum(sizes) == size):
        return None
    flat = np.memmap(path, "<i8", "r") if size else np.zeros(0, np.int64)
    arrays = iter(np.split(flat, np.cumsum(sizes, dtype=np.int64)[:-1]))
    if "buckets" not in facts:
        return Packing(next(arrays), next(arrays), **facts)
    buckets = [
        Bucket(tuple(shape), rows, [Group(next(arrays), taken) for taken in groups], used)
        for shape, rows, groups, used in facts["buckets"]
    ]
    return Buckets(buckets, facts["too_long"], facts["lopsided"])


def is_possible(plan: Buckets | Packing, batching: Batching, examples: int) -> bool:
    """Returns whether a plan contains only examples that exist, in batches that `batching` allows. The lengths of
    rows are checked when a batch is built, so that this check does not read the data.
    """
    if isinstance(plan, Packing):
        lists, shapes = [plan.members], [((plan.length,), plan.rows)]
        ends = len(plan.starts) and plan.starts[0] == 0 and plan.starts[-1] == len(plan.members)
        sound = ends and (np.diff(plan.starts) > 0).all() and plan.used >= 0
    else:
        lists = [group.members for bucket in plan.buckets for group in bucket.groups]
        shapes = [(bucket.shape, bucket.rows) for bucket in plan.buckets]
        sound = min(plan.too_long, plan.lopsided) >= 0 and all(
            b.groups and b.used >= 0 and all(len(g.members) and 1 <= g.taken <= MAX_TAKEN for g in b.groups)
            for b in plan.buckets
        )
    return bool(
        sound
        and plan.left_out >= 0
        and plan.left_out + sum(map(len, lists)) == examples
        and all(ids[0] >= 0 and ids[-1] < examples and (np.diff(ids) > 0).all() for ids in lists if len(ids))
        and len({len(shape) for shape, _ in shapes}) <= 1
        and all(
            shape
            and rows >= 1
            and min(shape) >= 1
            and max(shape) <= batching.max_length
            and rows * sum(shape) <= max(batching.tokens, sum(shape))
            for shape, rows in shapes
        )
    )


def save_plan(plan: Buckets | Packing, folder: Path) -> None:
    if isinstance(plan, Packing):
        facts, arrays = plan._asdict(), [plan.members, plan.starts]
        del facts["members"], facts["starts"]
    else:
        arrays = [group.members for bucket in plan.buckets for group in bucket.groups]
        buckets = [(b.shape, b.rows, [group.taken for group in b.groups], b.used) for b in plan.buckets]
        facts = {**plan._asdict(), "buckets": buckets}
    with (folder / "arrays").open("wb") as stream:
        for array in arrays:
            stream.write(array.astype("<i8").tobytes())
    (folder / "plan.json").write_text(json.dumps({**facts, "sizes": [len(array) for array in arrays]}))


def bucket_plan(
    task: Task, corpus: Corpus, batching: Batching, sizes: Callable[[], np.ndarray], *, any_ratio: bool = False
) -> Plan:
    """Returns buckets for examples of `sizes()` positions [examples, columns], cached in the corpus folder.

    If `any_ratio` is true, the lengths of a pair may have any ratio.
    """
    if any_ratio:
        batching = dataclasses.replace(batching, max_ratio=math.inf)

    def make() -> Buckets:
        return make_buckets(sizes(), batching, corpus.parts)

    return cached_plan(make, task, corpus, batching)


def cut_source_plan(task: Task, corpus: Corpus, batching: Batching, maximum: int) -> Plan:
    """Returns the `bucket_plan` for pairs whose source is truncated to `maximum` tokens. Pairs with too long a target
    are left out.
    """
    longest = max(batching.max_length, maximum + 1)

    def sizes() -> np.ndarray:
        source, target = np.minimum(corpus.lengths("source"), maximum) + 1, corpus.lengths("target") + 1
        return np.concatenate([source, np.where(target > batching.max_length, longest + 1, target)], axis=1)

    return bucket_plan(task, corpus, dataclasses.replace(batching, max_length=longest), sizes, any_ratio=True)


def cut_pairs_plan(
    task: Task, corpus: Corpus, batching: Batching, longest: int, sizes: Callable[[], np.ndarray]
) -> Plan:
    """Returns the `bucket_plan` for pairs that are truncated to at most `longest` positions, so none is left out."""
    return bucket_plan(task, corpus, dataclasses.replace(batching, max_length=longest), sizes, any_ratio=True)


def cached_plan(make: Callable[[], Buckets | Packing], task: Task, corpus: Corpus, batching: Batching) -> Plan:
    """Returns the plan that `make` computes for a task, cached in the corpus folder."""
    if corpus.folder is None:
        return make()
    identity = hashlib.sha256(repr((VERSION, task, batching, corpus.parts)).encode()).hexdigest()[:24]
    return load_or_make_plan(corpus.folder / f"plan-{identity}", make, batching, len(corpus))
