"""Shared code of the benchmarks: allocator settings, timing in alternating rounds, and output as lines of JSON.

Ratios have four digits, so that rounding does not decide whether a goal is reached.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tyro

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
ALLOCATOR = {  # without these settings PyTorch spends half of its time in the kernel
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def with_allocator() -> None:
    """Restarts this process if it has other allocator settings."""
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})


def run_main(main: Callable[..., None]) -> None:
    """Runs `main` with the arguments of the command line. Prints a `SeqlabError` as one line."""
    from seqlab.system.errors import SeqlabError

    try:
        tyro.cli(main)
    except SeqlabError as error:
        sys.exit(f"error: {error}")


def check_names(given: Sequence[str], known: Sequence[str]) -> None:
    """Exits if a name is unknown."""
    unknown = [name for name in given if name not in known]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}: choose one of {', '.join(known)}")


def in_turns(everyone: dict[str, Callable[[], object]], amount: float, rounds: int) -> dict[str, list[float]]:
    """Returns, for each candidate, `amount` per second in each round. Candidates run in turns, in reverse order in
    every second round. They must be warmed up.
    """
    if rounds < 1:
        sys.exit(f"--rounds must be at least 1, not {rounds}")
    rates: dict[str, list[float]] = {who: [] for who in everyone}
    for i in range(rounds):
        for who in list(everyone)[:: -1 if i % 2 else 1]:
            rates[who].append(amount / seconds(everyone[who]))
    return rates


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def quickest(choices: Sequence[Callable[[], object]]) -> int:
    """Returns the index of the fastest choice, after a warm-up of each."""
    for work in choices:
        work()
    times = [seconds(work) for work in choices]
    return times.index(min(times))


def fastest(rates: dict[str, list[float]], among: Sequence[str]) -> str:
    return max(among, key=lambda who: statistics.median(rates[who]))


def tell(
    name: str,
    rates: dict[str, list[float]],
    ours: str,
    peer: str | None,
    unit: str,
    notes: str,
    limit: float | None = None,
) -> None:
    """Prints the row of two candidates that ran in turns, or of ours alone. The ratio is the median ratio of the
    rounds. `limit` is our rate at the limit of the machine, if it is known.
    """
    medians = {who: statistics.median(rates[who]) for who in (ours, peer) if who}
    more: dict[str, Any] = {"spread": {who: [rounded(min(rates[who])), rounded(max(rates[who]))] for who in medians}}
    if limit is not None:
        more["limit_fraction"] = round(medians[ours] / limit, 2)
    if peer:
        ratios = [mine / theirs for mine, theirs in zip(rates[ours], rates[peer], strict=True)]
        more["ratio"] = rounded(statistics.median(ratios))
        more["ratios"] = [rounded(min(ratios)), rounded(max(ratios))]
    row(name, medians[ours], medians.get(peer), unit, notes, **more)


def row(name: str, ours: float, peer: float | None, unit: str, notes: str, **more: Any) -> None:
    """Prints a row. `peer` is None if there is no peer."""
    found = {"name": name, "ours": rounded(ours), "peer": None if peer is None else rounded(peer)}
    found["ratio"] = None if peer is None else rounded(ours / peer)
    print(json.dumps({**found, **more, "unit": unit, "notes": notes}), flush=True)


def grown(name: str, over: str, sizes: Sequence[int], values: Sequence[float], unit: str, notes: str = "") -> None:
    """Prints a curve and its exponent at the upper end, by least squares of the last four logarithms."""
    logs = np.log(sizes[-4:]), np.log(values[-4:])
    exponent = round(float(np.polyfit(*logs, 1)[0]), 2)
    found = {"name": name, "over": over, "sizes": list(sizes), "values": list(map(rounded, values))}
    print(json.dumps({**found, "exponent": exponent, "unit": unit, "notes": notes}), flush=True)


def rounded(value: float) -> float:
    return float(f"{value:.4g}")
