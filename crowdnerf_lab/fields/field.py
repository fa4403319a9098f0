"""What every radiance field offers: density anywhere, colour anywhere along any direction, and rendered rays."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.rays import Rays
from crowdnerf_lab.rendering import Rendered


@runtime_checkable
class RadianceField(Protocol):
    """A scene as a function of position and direction (NeRF, Mildenhall et al. 2020). Implemented by nn.Modules."""

    def density(self, positions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Volume density per metre, >= 0, at world positions."""
        ...

    def forward(
        self, positions: Float[Tensor, "*n 3"], directions: Float[Tensor, "*n 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Density per metre and neutral sRGB colour in [0, 1] at world positions seen along unit directions."""
        ...

    def render(self, rays: Rays) -> Rendered:
        """Composite the field along rays of any batch shape; neutral colours, differentiable where the field is."""
        ...
