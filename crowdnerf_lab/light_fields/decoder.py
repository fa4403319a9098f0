"""From features of rays to pixels: 1x1 convolutions, every ray for itself, and sub-pixel convolution to a cell."""

from jaxtyping import Float
from torch import Tensor, nn


class Residual(nn.Module):
    """features + second(activation(first(features))), both 1x1 convolutions (MobileR2L, Cao et al. 2023)."""

    def __init__(self, width: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.activation = activation()

    def forward(self, features: Float[Tensor, "n w r c"]) -> Float[Tensor, "n w r c"]:
        return features + self.second(self.activation(self.first(features)))


def cell_decoder(inputs: int, *, width: int, blocks: int, cell: int) -> nn.Sequential:
    """Images [n 3 h w] in [0, 1] from features [n inputs r c]: head, residual blocks, cell x cell pixels each.

    The last convolution gives all the pixels of a cell as channels, rearranged (Shi et al. 2016).
    """
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1),
        nn.ReLU(),
        *[Residual(width) for _ in range(blocks)],
        nn.Conv2d(width, 3 * cell**2, 1),
        nn.PixelShuffle(cell),
        nn.Sigmoid(),
    )
