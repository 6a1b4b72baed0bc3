"""Sequence models in JAX/Flax: training, beam search decoding, and scores that can be cited."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqlab.runs.loading import Run

__version__ = "0.1.0"


def load(run: str | Path, checkpoint: str | int = "best") -> "Run":
    """Returns a trained run: `seqlab.load(RUN).translate(lines, beam=5)`. `checkpoint`: "best", "last" or a step."""
    from seqlab.runs.loading import load

    return load(run, checkpoint)
