"""A stack of recurrent or convolutional layers over a sequence, by name."""

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from seqlab.layers.convolution import TCNBlock, dilations, max_moves, run_over_all
from seqlab.layers.recurrent import GATES, RecurrentStack
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError


def stack_path(layer: str, layers: int, kernel: int, length: int) -> int | None:
    """Most moves from one of `length` positions of a stack to the last; None: it does not see that far."""
    if layer != "tcn":
        return length - 1
    return max_moves(2 * dilations(layers, layers), kernel, length - 1)


class SequenceStack(nn.Module):
    """`layers` layers of width `dim` over numbers [B T F]; a position sees itself and the past.

    `layer` is a recurrent cell, or "tcn": dilations 1, 2, 4, ... (Bai et al. 2018).
    """

    layer: str
    layers: int
    dim: int
    kernel: int
    dropout: float
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], mask: Bool[Array, "B T"], *, train: bool) -> Float[Array, "B T D"]:
        if self.layer not in (*GATES, "tcn"):
            raise SeqlabError(f"layer must be one of {', '.join(GATES)} and tcn, not {self.layer!r}")
        check_minimum("layers", self.layers, 1)
        if self.layer != "tcn":
            stack = RecurrentStack(self.layer, self.layers, x.shape[-1], self.dim, self.dropout, dtype=self.dtype)
            return stack(x, mask, train=train)[0]
        check_minimum("kernel", self.kernel, 2)
        run = run_over_all(mask)
        for dilation in dilations(self.layers, self.layers):
            x = TCNBlock(x.shape[-1], self.dim, self.kernel, dilation, self.dropout, self.dtype)(x, run, train=train)
        return x
