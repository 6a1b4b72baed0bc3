"""The hash trail: what a run fed to its steps and what came of it, in few bytes, and where two runs part.

With `hash_every` = N each N-th step leaves a line in RUN/hashes.jsonl: the step, and a digest each of the batch that
it was fed and of the parameters, optimizer state and carry that it left.
"""

from pathlib import Path
from typing import Any

import jax

from seqlab.system.digests import digest_of
from seqlab.system.errors import SeqlabError
from seqlab.system.files import Journal, read_jsonl
from seqlab.types import Batch, TrainState

TRAIL = "hashes.jsonl"

PARTS = {"batch": "batch", "params": "parameters", "optimizer": "optimizer state", "carry": "carry"}

DIGITS = 16  # hexadecimal: 64 bits, for accidents and not for forgers. Two that differ look equal once in 2 ** 64


def digests(batch: Batch, state: TrainState) -> dict[str, str]:
    """The digest of each of `PARTS`, over host trees.

    The batch is as the task made it, and the carry is cut to its rows: what fills rows up to a multiple of the
    devices does not count, so that runs on different numbers of devices can be compared.
    """
    carry = jax.tree.map(lambda x: x[: len(batch.targets)], state.carry)
    trees = {"batch": batch, "params": state.params, "optimizer": state.optimizer, "carry": carry}
    return {name: digest(trees[name]) for name in PARTS}


def digest(tree: Any) -> str:
    return digest_of(tree)[:DIGITS]


def read_trail(run: Path) -> dict[int, dict[str, str]]:
    """The digests of a run by step. Raises `SeqlabError` where there are none, or a line is damaged."""
    path = run / TRAIL
    if not path.exists():
        raise SeqlabError(f"{run} has no trail of hashes: train it with --hash-every N")
    trail = {}
    for number, line in enumerate(read_jsonl(path), 1):
        if not all(isinstance(line.get(name), str) and len(line[name]) == DIGITS for name in PARTS):
            raise SeqlabError(f"{path}:{number}: damaged: a digest of {DIGITS} digits is missing")
        trail[line["step"]] = {name: line[name] for name in PARTS}
    return trail


class Trail:
    """Appends to the trail of a run; opening it cuts off what was left after `step`."""

    def __init__(self, run: Path, step: int):
        self.path = run / TRAIL
        self.journal = Journal(self.path, [line for line in read_jsonl(self.path) if line["step"] <= step])

    def write(self, step: int, batch: Batch, state: TrainState) -> None:
        """One line: what `step` was fed, and the state it left; kept where there is no room for it yet."""
        self.journal.write({"step": step, **digests(batch, state)})

    def close(self) -> None:
        """Raises `SeqlabError` for lines that could not be written to the end."""
        error = self.journal.close()
        if error is not None:
            raise SeqlabError(f"{self.path} could not be written to the end: {error}")
