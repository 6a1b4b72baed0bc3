"""What models that are a head on an encoder share."""

from flax import linen as nn


class EncoderHead(nn.Module):
    """Lengths and paths are those of the encoder."""

    encoder: nn.Module

    @property
    def longest(self) -> int | None:
        return self.encoder.longest

    @property
    def receptive_field(self) -> int | None:
        return self.encoder.receptive_field

    @property
    def widest_kernel(self) -> int:
        return self.encoder.widest_kernel

    @nn.nowrap
    def paths(self, length: int) -> dict[str, int | None]:
        return self.encoder.paths(length)
