"""The parts of the proofs are found as those of a user are, by `--parts`."""

from pathlib import Path

from seqlab.system.parts import use_parts

PARTS = Path(__file__).with_name("parts")
use_parts(PARTS)
