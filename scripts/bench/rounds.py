"""What the comparisons share: the allocator's settings, taking turns, and the row that comes of it."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

ALLOCATOR = {  # or PyTorch spends half of its time in the kernel
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def with_allocator() -> None:
    """Begins this process anew where it has other settings."""
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})


def in_turns(everyone: dict[str, Callable[[], object]], amount: float, rounds: int) -> dict[str, list[float]]:
    """Of each, how much of `amount` it did a second, in each of the rounds. They are warm."""
    rates: dict[str, list[float]] = {who: [] for who in everyone}
    for _ in range(rounds):
        for who, work in everyone.items():
            rates[who].append(amount / seconds(work))
    return rates


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def fastest(rates: dict[str, list[float]], among: Sequence[str]) -> str:
    return max(among, key=lambda who: statistics.median(rates[who]))


def tell(
    name: str, rates: dict[str, list[float]], ours: str, peer: str, unit: str, notes: str, limit: float | None = None
) -> None:
    """Prints a row; `limit`, if it is known, is our rate at the machine's limit."""
    mine, other = (statistics.median(rates[who]) for who in (ours, peer))
    row = {
        "name": name,
        "ours": round(mine, 1),
        "peer": round(other, 1),
        "ratio": round(mine / other, 2),
        **({} if limit is None else {"limit_fraction": round(mine / limit, 2)}),
        "unit": unit,
        "spread": {who: [round(min(rates[who]), 1), round(max(rates[who]), 1)] for who in (ours, peer)},
        "notes": notes,
    }
    print(json.dumps(row), flush=True)
