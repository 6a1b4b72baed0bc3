"""A reader that passes vectors through unchanged."""

from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from seqlab.types import Frames, Reader


class Numbers(nn.Module, Reader):
    """The numbers of each position, without parameters. Leave `features` at 0: it is set from the data."""

    features: int = 0
    """Number of features at each position."""
    column: str = "source"

    @nn.nowrap
    def read(
        self, inputs: Frames, width: int, *, embed: Any = None
    ) -> tuple[Float[Array, "B P F"], Bool[Array, "B P"]]:
        return inputs.values, inputs.mask

    @nn.nowrap
    def blank(self, rows: int, length: int) -> Frames:
        return Frames(np.zeros((rows, length, self.features), np.float32), np.ones((rows, length), bool))


TINY = Numbers(features=2)
