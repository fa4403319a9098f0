"""RayMLP: a light field in MobileR2L's form (Cao et al., CVPR 2023).

K points a ray, each with L frequencies, are the channels of a low-resolution image (K = 8, L = 6: 312 channels); then a
body of 1x1 convolutions with residuals, every ray for itself; then a tail that returns cell x cell pixels a ray. A cell
of one pixel is R2L (Wang et al. 2022), without super-resolution: the same body asked 64 times as often.

The K points are where the ray meets K parallel planes across the scene. Distilled from the concert's field in the same
time, views between the captured ones came out 1.1 dB better than with points at fixed distances from the camera.
"""

import json
import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.light_fields.decoder import Residual
from crowdnerf_lab.light_fields.light_field import LightFieldError, images_of
from crowdnerf_lab.light_fields.planes import SamplingPlanes, meeting_points
from crowdnerf_lab.scene import Bounds

FORMAT = "crowdnerf_lab.ray_mlp/1"

DEPTH_AND_WIDTH: dict[str, tuple[int, int]] = {"XS": (10, 64), "S": (20, 128), "M": (30, 128), "L": (60, 256)}
"""Convolutions as the paper counts them (D: head, body and one more), and their channels (W); L is the paper's."""
STAGE_CHANNELS: dict[str, tuple[int, int, int]] = {
    "XS": (32, 16, 8),
    "S": (32, 32, 16),
    "M": (64, 64, 16),
    "L": (64, 64, 16),
}
"""Channels of the 4x4 transposed convolutions, each of twice the resolution; smaller cells do without the first."""
CELLS = (8, 4, 1)
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
UPSAMPLINGS = ("pixel_shuffle", "conv_transpose")


class RayMLP(nn.Module):
    """K points a ray -> frequencies -> 1x1 convolutions -> cell x cell pixels; size: see DEPTH_AND_WIDTH, cell: CELLS.

    upsampling: 'pixel_shuffle' is one 1x1 convolution to all pixels of the cell, rearranged (sub-pixel convolution, Shi
    et al. 2016): every cell for itself, int8 throughout, 1.7 times the training steps. 'conv_transpose' is the paper's
    4x4 transposed convolutions (three for cells of 8) with two residual blocks each; they see the neighbouring cells,
    but ONNX Runtime has no int8 kernel for them on CPUs. activation: 'relu', or the paper's 'gelu', slower on CPUs and
    in browsers. The paper's batch normalisation is left out: it folds away in the device's graph, and the residual body
    trains without it. frequencies (L): sin and cos of each coordinate at octaves 0 to L - 1. seed: of the weights.

    The network knows rays, not pixels: it draws cells of the angular size that it was distilled with, so ask it for
    images of about view_size (width, height), or for part of such a view.
    """

    bounds_centre: Float[Tensor, "3"]
    bounds_half_size: Float[Tensor, "3"]
    normal: Float[Tensor, "3"]
    offsets: Float[Tensor, "k"]

    def __init__(
        self,
        planes: SamplingPlanes,
        size: str = "S",
        *,
        cell: int = 8,
        activation: str = "relu",
        upsampling: str = "pixel_shuffle",
        frequencies: int = 6,
        view_size: tuple[int, int] = (320, 240),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _one_of("size", size, DEPTH_AND_WIDTH)
        _one_of("cell", cell, CELLS)
        _one_of("activation", activation, ACTIVATIONS)
        _one_of("upsampling", upsampling, UPSAMPLINGS)
        self.size, self.activation, self.upsampling, self.frequencies = size, activation, upsampling, frequencies
        self.cell, self.view_size = cell, view_size
        self.register_buffer("bounds_centre", planes.bounds.centre.clone())
        self.register_buffer("bounds_half_size", planes.bounds.half_size.clone())
        self.register_buffer("normal", planes.normal.clone())
        self.register_buffer("offsets", planes.offsets.clone())
        depth, width = DEPTH_AND_WIDTH[size]
        encoded = 3 * len(planes.offsets) * (2 * frequencies + 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.Conv2d(encoded, width, 1), ACTIVATIONS[activation]())
            self.body = nn.Sequential(*[Residual(width, ACTIVATIONS[activation]) for _ in range((depth - 2) // 2)])
            self.tail = (
                nn.Sequential(nn.Conv2d(width, 3 * cell**2, 1), nn.PixelShuffle(cell))
                if upsampling == "pixel_shuffle"
                else _staged_tail(width, STAGE_CHANNELS[size], int(math.log2(cell)), activation)
            )

    @property
    def architecture(self) -> str:
        """What it is made of, in one line."""
        depth, width = DEPTH_AND_WIDTH[self.size]
        return (
            f"ray MLP {self.size}: D{depth} W{width}, {len(self.offsets)} points, {self.frequencies} frequencies, "
            f"{self.activation}, {self.upsampling} x{self.cell}"
        )

    @property
    def cells_are_independent(self) -> bool:
        """Whether a cell's pixels depend on its own ray alone, so that training may mix cells of different views."""
        return self.upsampling == "pixel_shuffle" or self.cell == 1

    def points(
        self, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"]
    ) -> Float[Tensor, "n p r c"]:
        """The K points of each ray in units of the bounds ([-1, 1] inside), contracted to [-2, 2] outside.

        The contraction is Mip-NeRF 360's (Barron et al. 2022) in the infinity norm: x (2 - 1/|x|) / |x| beyond 1.
        """
        planes = SamplingPlanes(Bounds(self.bounds_centre, self.bounds_half_size), self.normal, self.offsets)
        local = meeting_points(planes, origins, directions) / self.bounds_half_size[:, None, None]
        norm = local.abs().amax(2, keepdim=True).clamp(min=1)
        return (local * (2 - 1 / norm) / norm).flatten(1, 2)

    def from_points(self, points: Float[Tensor, "n p r c"]) -> Float[Tensor, "n 3 h w"]:
        """Images, channels first, from the rays' points; each cell becomes cell x cell pixels."""
        scales = [points * 2.0**octave for octave in range(self.frequencies)]
        encoded = torch.cat([points, *map(torch.sin, scales), *map(torch.cos, scales)], dim=1)
        features = self.head(encoded)
        return torch.sigmoid(self.tail(self.body(features) + features))

    def from_rays(
        self, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Images, channels first, from the rays through the cells' centres."""
        return self.from_points(self.points(origins, directions))

    def forward(self, cameras: Cameras, height: int, width: int) -> Float[Tensor, "n h w 3"]:
        """Images of n cameras, sRGB in [0, 1]; cells that reach beyond the border are cut."""
        return images_of(self, cameras, height=height, width=width)

    def header(self) -> dict[str, str]:
        """What a file of its weights says about how it is made."""
        return {
            "size": self.size,
            "cell": str(self.cell),
            "activation": self.activation,
            "upsampling": self.upsampling,
            "frequencies": str(self.frequencies),
            "view_size": json.dumps(self.view_size),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], header: dict[str, str]) -> "RayMLP":
        """The network that `state_dict()` and `header()` describe. KeyError, ValueError, RuntimeError on nonsense."""
        planes = SamplingPlanes(
            Bounds(tensors["bounds_centre"], tensors["bounds_half_size"]), tensors["normal"], tensors["offsets"]
        )
        width, height = json.loads(header["view_size"])
        network = cls(
            planes,
            header["size"],
            cell=int(header.get("cell", 8)),  # files of before cells had sizes
            activation=header["activation"],
            upsampling=header["upsampling"],
            frequencies=int(header["frequencies"]),
            view_size=(int(width), int(height)),
        )
        network.load_state_dict(tensors)
        return network


def _staged_tail(width: int, channels: tuple[int, int, int], stages: int, activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = width
    for after in channels[len(channels) - stages :]:
        layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), ACTIVATIONS[activation]()]
        layers += [Residual(after, ACTIVATIONS[activation]), Residual(after, ACTIVATIONS[activation])]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, 3, 1))


def _one_of(name: str, value: str | int, allowed: Iterable[str | int]) -> None:
    if value not in allowed:
        raise LightFieldError(f"{name} {value!r} is not known; choose one of {', '.join(map(str, allowed))}")
