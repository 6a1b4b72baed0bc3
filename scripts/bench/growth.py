"""Measures how decoding time grows with the beam size, the number of sentences and their length.

    python scripts/bench/growth.py

The model is a Transformer with 3+3 layers of width 256 and random weights. All texts have the maximum length.
"""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import tyro
from rounds import grown, seconds
from train import CASES, Case, initial_params

from seqlab.config import Search
from seqlab.search.generate import generate
from seqlab.search.requests import Request
from seqlab.search.settings import split_settings
from seqlab.system.memory import keep_freed_memory

BOS, EOS = 1, 2
BEAMS = (1, 2, 4, 8, 16, 32)
SENTENCES = (1, 4, 16, 64, 256, 1024)
LENGTHS = (16, 32, 64, 128, 256, 512)


def main(rounds: int = 5) -> None:
    keep_freed_memory()
    case = CASES["transformer"]
    params = initial_params(case)

    def median(sentences: int, length: int, beam: int) -> float:
        """Returns the median time of several rounds after a warm-up, in seconds."""
        work = decoding(case, params, sentences, length, beam)
        work()
        return statistics.median(seconds(work) for _ in range(rounds))

    notes = "{}; outputs as long as their sources"
    for name, sizes, work, fixed in (
        ("beam", BEAMS, lambda n: median(16, 32, n), "16 sentences of 32 tokens"),
        ("sentences", SENTENCES, lambda n: median(n, 32, 5), "32 tokens, beam 5"),
        ("tokens", LENGTHS, lambda n: median(4, n, 5), "4 sentences, beam 5"),
    ):
        grown(f"growth/decode/{name}", name, sizes, list(map(work, sizes)), "s", notes.format(fixed))


def decoding(case: Case, params: Any, sentences: int, length: int, beam: int) -> Callable[[], Any]:
    """Returns a function that decodes random sources into outputs of the same length."""
    sources = np.random.default_rng(0).integers(4, case.model.vocabulary, (sentences, length)).tolist()
    requests = [Request(source, [BOS], length, minimum=length) for source in sources]
    return functools.partial(generate, case.model, params, requests, split_settings(Search(beam=beam), eos=EOS))


if __name__ == "__main__":
    tyro.cli(main)
