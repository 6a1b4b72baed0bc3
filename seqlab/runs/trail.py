"""The hash trail: digests of the batches and the states of a run.

With `hash_every` = N, every N-th step writes a line to RUN/hashes.jsonl with the step, the digest of its batch, and
the digests of the parameters, the optimizer state and the carry after the step.
"""

from pathlib import Path
from typing import Any

import jax

from seqlab.system.digests import digest_of
from seqlab.system.errors import SeqlabError
from seqlab.system.files import Journal, read_jsonl
from seqlab.types import TrainState

TRAIL = "hashes.jsonl"
PARTS = {"batch": "batch", "params": "parameters", "optimizer": "optimizer state", "carry": "carry"}
DIGITS = 16  # hexadecimal, 64 bits: two values collide with probability 2 ** -64, but forgery is possible


def digests(batch: Any, state: TrainState) -> dict[str, str]:
    """Returns the digest of each of `PARTS`, from trees on the host.

    Padding rows, which fill a batch up to a multiple of the devices, are excluded from the batch and the carry, so
    that runs on different numbers of devices can be compared.
    """
    carry = jax.tree.map(lambda x: x[: len(jax.tree.leaves(batch)[0])], state.carry)
    trees = {"batch": batch, "params": state.params, "optimizer": state.optimizer, "carry": carry}
    return {name: digest(trees[name]) for name in PARTS}


def digest(tree: Any) -> str:
    """Returns the digest of a tree of arrays, in the form of the trail."""
    return digest_of(tree)[:DIGITS]


def read_trail(run: Path) -> dict[int, dict[str, str]]:
    """Returns the digests of a run by step. Raises `SeqlabError` if the trail is missing or damaged."""
    path = run / TRAIL
    if not path.exists():
        raise SeqlabError(f"{run} has no hashes: train it with --hash-every N")
    trail = {}
    for number, line in enumerate(read_jsonl(path), 1):
        if not all(isinstance(line.get(name), str) and len(line[name]) == DIGITS for name in PARTS):
            raise SeqlabError(f"{path}:{number}: damaged: a digest of {DIGITS} digits is missing")
        trail[line["step"]] = {name: line[name] for name in PARTS}
    return trail


class Trail:
    """Appends to the trail of a run. Opening it removes the lines after `step`."""

    def __init__(self, run: Path, step: int):
        self.path = run / TRAIL
        self.journal = Journal(self.path, [line for line in read_jsonl(self.path) if line["step"] <= step])

    def write(self, step: int, batch: Any, state: TrainState) -> None:
        """Writes the line of `step`. If the disk is full, the line is written later."""
        self.journal.write({"step": step, **digests(batch, state)})

    def close(self) -> None:
        """Closes the trail. Raises `SeqlabError` if some lines could not be written."""
        error = self.journal.close()
        if error is not None:
            raise SeqlabError(f"{self.path} could not be written completely: {error}")
