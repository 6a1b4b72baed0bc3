"""Attention of a few queries to a cache, by fused sums and by products of small matrices, on this machine.

    python scripts/bench/attention.py

A JSON line for each width of a head and number of slots: the medians of 20 runs, in milliseconds.
"""

import json
import statistics
import time

import jax
import numpy as np

from seqlab.layers.attention import by_products, by_sums

SENTENCES, HEADS, HYPOTHESES = 64, 4, 5


def milliseconds(function, *arguments) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def main() -> None:
    random = np.random.default_rng(0)
    for width in (32, 64):
        for slots in (80, 160, 320):
            shapes = (HYPOTHESES, width), (width, slots), (slots, width)
            arrays = [random.normal(size=(SENTENCES, HEADS, *shape)).astype(np.float32) for shape in shapes]
            mask = random.random((SENTENCES, 1, HYPOTHESES, slots)) < 0.2
            times = {f.__name__: milliseconds(jax.jit(f), *arrays, mask) for f in (by_sums, by_products)}
            print(json.dumps({"name": f"attention/{width}x{slots}", "unit": "ms", **times}))


if __name__ == "__main__":
    main()
