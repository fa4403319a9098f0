"""A radiance field that needs no training: soft coloured balls, and a crowd that looks at them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.cameras import Cameras, look_at, pinhole
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.rendering import Rendered, composite, render_view
from crowdnerf_lab.scene import PosedScene, bounds_of

SAMPLES = 48


class ToyField(nn.Module):
    """Three balls of radius about 1 m around the origin; density and colour in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", torch.tensor([[-1.2, 0.0, 0.0], [0.9, 0.5, 0.4], [0.2, -0.6, -0.7]]))
        self.register_buffer("radii", torch.tensor([0.9, 0.7, 0.5]))
        self.register_buffer("colours", torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.7, 0.3], [0.2, 0.3, 0.9]]))
        self.register_buffer("background", torch.tensor([0.2, 0.2, 0.25]))

    def shares(self, positions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Density of each ball, per metre."""
        apart = torch.linalg.vector_norm(positions[..., None, :] - self.centres, dim=-1)
        return 8 * torch.sigmoid(12 * (1 - apart / self.radii))

    def density(self, positions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        return self.shares(positions).sum(-1)

    def forward(
        self, positions: Float[Tensor, "*n 3"], directions: Float[Tensor, "*n 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        shares = self.shares(positions)
        weights = shares / shares.sum(-1, keepdim=True).clamp(min=1e-6)
        shading = 0.85 + 0.15 * directions[..., 1:2]
        return shares.sum(-1), (weights @ self.colours) * shading

    def render(self, rays: Rays) -> Rendered:
        edges = torch.linspace(2.0, 7.0, SAMPLES + 1).expand(*rays.batch_shape, SAMPLES + 1)
        middle = (edges[..., 1:] + edges[..., :-1]) / 2
        positions = rays.origins[..., None, :] + middle[..., None] * rays.directions[..., None, :]
        density, colour = self(positions, rays.directions[..., None, :].expand_as(positions))
        return composite(density, colour, edges, self.background)


def toy_cameras(count: int, *, width: int = 48, height: int = 40, seed: int = 0) -> Cameras:
    """Cameras on an arc of 80 degrees, 4.5 m from the balls."""
    generator = torch.Generator().manual_seed(seed)
    azimuth = math.radians(80) * (torch.linspace(0, 1, count) - 0.5)
    lift = torch.rand(count, generator=generator) - 0.5
    eyes = 4.5 * torch.stack([azimuth.sin(), -azimuth.cos(), 0.2 * lift], dim=-1)
    focal = torch.full((count,), 0.9 * width)
    return pinhole(look_at(eyes, torch.zeros(count, 3)), focal, width=width, height=height)


def toy_scene(count: int = 12, *, width: int = 48, height: int = 40) -> PosedScene:
    """Photos of the toy field by four UEs; every fourth is held out."""
    cameras, field = toy_cameras(count, width=width, height=height), ToyField()
    images = tuple((render_view(field, cameras, i).colour * 255).round().to(torch.uint8) for i in range(count))
    held_out = [i for i in range(count) if i % 4 == 2]
    return PosedScene(
        name="toy",
        image_names=tuple(f"{i:02}.png" for i in range(count)),
        cameras=cameras,
        images=images,
        masks=None,
        bounds=bounds_of(cameras),
        captures=("ue00", "ue01", "ue02", "ue03"),
        capture_of_image=torch.arange(count) % 4,
        time_of_image=torch.zeros(count),
        train=torch.tensor([i for i in range(count) if i not in held_out]),
        held_out=torch.tensor(held_out),
        origin_wgs84=None,
    )
