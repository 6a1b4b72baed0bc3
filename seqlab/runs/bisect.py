"""Comparison of two runs by their hash trails, to find the first step at which they differ."""

from pathlib import Path
from typing import NamedTuple

from seqlab import catalogue
from seqlab.data.codec_files import RUN_RECORD, read_record
from seqlab.data.records import differing
from seqlab.runs.trail import PARTS, read_trail
from seqlab.system.errors import SeqlabError


class Bisection(NamedTuple):
    """The first difference between two runs.

    `step` is the first step in both trails at which `parts` differ, or None if the runs are equal up to `before`.
    `before` is the last common step at which the runs are equal, or 0 if there is none.
    """

    experiment: list[str]  # the fields that differ, as "name: old -> new"
    data: list[str]  # the splits that differ
    before: int
    step: int | None
    parts: list[str]


def bisect(first: Path, second: Path) -> Bisection:
    """Compares the trails of two runs at their common steps. Raises `SeqlabError` if there is no common step."""
    runs = (first, second)
    experiments = [catalogue.load_experiment(run / "experiment.json") for run in runs]
    hashes = [read_record(run / RUN_RECORD).splits for run in runs]
    trails = [read_trail(run) for run in runs]
    before, step, parts = first_difference(*trails)
    if not before and step is None:
        lengths = "; ".join(f"{run}: {describe_steps(trail)}" for run, trail in zip(runs, trails, strict=True))
        raise SeqlabError(f"the runs have no hashed step in common ({lengths}): use the same --hash-every for both")
    return Bisection(catalogue.differences(*experiments), differing(*hashes), before, step, parts)


def first_difference(
    first: dict[int, dict[str, str]], second: dict[int, dict[str, str]]
) -> tuple[int, int | None, list[str]]:
    """Returns the fields `before`, `step` and `parts` of a `Bisection`, from the digests of two runs by step."""
    before = 0
    for step in sorted(first.keys() & second.keys()):
        parts = [name for name in PARTS if first[step][name] != second[step][name]]
        if parts:
            return before, step, parts
        before = step
    return before, None, []


def describe_steps(trail: dict[int, dict[str, str]]) -> str:
    """Returns a description of the steps in a trail."""
    return f"{len(trail)} steps from {min(trail)} to {max(trail)}" if trail else "no steps yet"


def format_bisection(bisection: Bisection) -> str:
    """Returns the comparison as text for a terminal."""
    lines = [f"the experiments differ: {line}" for line in bisection.experiment]
    lines += [f"the data differs: {split}" for split in bisection.data]
    if bisection.step is None:
        return "\n".join([*lines, f"equal up to step {bisection.before}"])
    before = bisection.before
    lines += [f"equal up to step {before}"] if before else ["the runs differ from the first common step"]
    names = ", ".join(PARTS[name] for name in bisection.parts)
    return "\n".join([*lines, f"step {bisection.step} differs: {names}", verdict(bisection, bisection.step)])


def verdict(bisection: Bisection, step: int) -> str:
    """Returns what the first difference, at `step`, implies. Earlier steps without hashes may hide its cause."""
    batch_differs, first, last = "batch" in bisection.parts, bisection.before + 1, step - 1
    if first <= last:
        hidden = f"step {last}" if first == last else f"steps {first} to {last}"
        batches = f"the batches of step {step} {'differ' if batch_differs else 'are the same'}"
        return f"{batches}, but {hidden} left no hashes: train both with --hash-every 1 to find the first difference"
    if batch_differs:
        return "the batches differ: the cause is the data or its order"
    before = ", and so was the state before" if bisection.before else ""
    causes = [] if bisection.before else ["different initial parameters"]
    causes += ["different experiments", "arithmetic"] if bisection.experiment else ["arithmetic"]
    return f"the batches are the same{before}: the cause is {' or '.join(causes)}, not the data"
