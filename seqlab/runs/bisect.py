"""TODO runs.bisect."""

from pathlib import Path
from typing import NamedTuple

from seqlab import catalogue
from seqlab.data.records import differing
from seqlab.data.tokenizer_files import RECORD, read_record
from seqlab.runs.trail import PARTS, read_trail
from seqlab.system.errors import SeqlabError


class Bisection(NamedTuple):
    """Where two runs part: `step`, the first that both trails have and in which `parts` differ, and `before`, the
    last one before it (0: none), at which all was equal. `step` None: all is equal up to `before`.
    """

    experiment: list[str]  # fields that differ, as "name: old -> new"
    data: list[str]  # splits of other content
    before: int
    step: int | None
    parts: list[str]


def bisect(first: Path, second: Path) -> Bisection:
    """Compares the trails of two runs at the steps that both have. Raises `SeqlabError` where there is none."""
    runs = (first, second)
    experiments = [catalogue.load_experiment(run / "experiment.json") for run in runs]
    hashes = [read_record(run / RECORD)[0] for run in runs]
    trails = [read_trail(run) for run in runs]
    before, step, parts = first_difference(*trails)
    if not before and step is None:
        told = "; ".join(f"{run}: {steps_of(trail)}" for run, trail in zip(runs, trails, strict=True))
        raise SeqlabError(f"the trails have no step in common ({told}): choose values of hash_every that meet")
    return Bisection(catalogue.differences(*experiments), differing(*hashes), before, step, parts)


def first_difference(
    one: dict[int, dict[str, str]], other: dict[int, dict[str, str]]
) -> tuple[int, int | None, list[str]]:
    """(last common step at which all is equal, the next one, the parts that differ there); 0, None: no such step."""
    before = 0
    for step in sorted(one.keys() & other.keys()):
        parts = [name for name in PARTS if one[step][name] != other[step][name]]
        if parts:
            return before, step, parts
        before = step
    return before, None, []


def steps_of(trail: dict[int, dict[str, str]]) -> str:
    return f"{len(trail)} steps from {min(trail)} to {max(trail)}" if trail else "no steps yet"


def shown(found: Bisection) -> str:
    """For a terminal."""
    lines = [f"the experiments differ: {line}" for line in found.experiment]
    lines += [f"the data differs: {split}" for split in found.data]
    if found.step is None:
        return "\n".join([*lines, f"equal up to step {found.before}"])
    lines += [f"equal up to step {found.before}"] if found.before else ["unequal from the first common step on"]
    which = ", ".join(PARTS[name] for name in found.parts)
    return "\n".join([*lines, f"step {found.step} differs: {which}", verdict(found, found.step)])


def verdict(found: Bisection, step: int) -> str:
    """What the first difference, at `step`, means: steps before it that left no line may hide its cause."""
    other_batch, first, last = "batch" in found.parts, found.before + 1, step - 1
    if first <= last:
        hidden = f"step {last}" if first == last else f"steps {first} to {last}"
        told = f"the batches of step {step} {'differ' if other_batch else 'are the same'}"
        return f"{told}, but {hidden} left no hashes: train both with --hash-every 1 to see where it begins"
    if other_batch:
        return "the batches differ: data, or its order"
    before = ", and so was the state before" if found.before else ""
    causes = [] if found.before else ["other parameters to begin with"]
    causes += ["experiments that differ", "arithmetic"] if found.experiment else ["arithmetic"]
    return f"the batches are the same{before}: {' or '.join(causes)}, not data"
