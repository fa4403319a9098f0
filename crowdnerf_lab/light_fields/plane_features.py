"""PlaneFeatures: a light field that looks up learned pictures where a ray meets K parallel planes.

Each plane holds a small picture of learned features; a ray reads all of them where it passes (bilinear), and a few 1x1
convolutions make the cell's pixels of what it read. This is a multiplane image (Zhou et al. 2018, Stereo Magnification)
whose blending is learned, not composited; grids of features in place of frequencies are what LightSpeed (Gupta et al.
2023) and Instant NGP (Mueller et al. 2022) owe their speed to. A plane keeps what a network must recall with every
weight, such as words on a screen, so distillation is faster: from the concert's field size S was 3 dB above RayMLP S
(to the teacher) after 8 seconds of two CPU cores and 0.8 dB after 90; after 240 it was 0.2 behind, size M 0.9 ahead.
"""

import json
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.light_fields.decoder import cell_decoder
from crowdnerf_lab.light_fields.light_field import LightFieldError, images_of
from crowdnerf_lab.light_fields.planes import SamplingPlanes, axes_in, meeting_points, planes_through, windows_seen
from crowdnerf_lab.scene import Bounds


@dataclass(frozen=True)
class Layout:
    """size: its name. points: K planes. columns, rows, channels: of each plane's picture. width, blocks: channels and
    residual blocks of the convolutions. frequencies: octaves of sine and cosine that say where a ray passes, besides
    the pictures. cell: pixels along the side of what a ray draws."""

    size: str
    points: int
    columns: int
    rows: int
    channels: int
    width: int = 64
    blocks: int = 2
    frequencies: int = 2
    cell: int = 4


LAYOUTS = (
    Layout("XS", points=12, columns=48, rows=32, channels=4, width=48),
    Layout("S", points=12, columns=64, rows=48, channels=6),
    Layout("M", points=12, columns=128, rows=64, channels=8),
)
GAIN = 10.0
"""Features are stored this much smaller than they are used, so that one step of Adam moves them this much further than
the convolutions' weights: 0.3 dB in equal time."""


class PlaneFeatures(nn.Module):
    """K planes of features -> 1x1 convolutions -> cell x cell pixels.

    planes: as many as the layout has points. windows: the part of each plane that its picture covers, see windows_seen;
    beyond it the picture's border goes on. view_size: as RayMLP's.
    """

    bounds_centre: Float[Tensor, "3"]
    bounds_half_size: Float[Tensor, "3"]
    normal: Float[Tensor, "3"]
    offsets: Float[Tensor, "k"]
    windows: Float[Tensor, "k 2 2"]
    axes: Float[Tensor, "2 3"]

    def __init__(
        self,
        planes: SamplingPlanes,
        windows: Float[Tensor, "k 2 2"],
        layout: Layout,
        *,
        view_size: tuple[int, int] = (320, 240),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(planes.offsets) != layout.points:
            raise LightFieldError(f"{layout} needs {layout.points} planes, not {len(planes.offsets)}; give that many")
        self.size, self.cell, self.view_size, self.layout = layout.size, layout.cell, view_size, layout
        self.register_buffer("bounds_centre", planes.bounds.centre.clone())
        self.register_buffer("bounds_half_size", planes.bounds.half_size.clone())
        self.register_buffer("normal", planes.normal.clone())
        self.register_buffer("offsets", planes.offsets.clone())
        self.register_buffer("windows", windows.clone())
        self.register_buffer("axes", axes_in(planes), persistent=False)
        inputs = layout.points * (layout.channels + 2 * (2 * layout.frequencies + 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pictures = torch.randn(layout.points, layout.channels, layout.rows, layout.columns)
            self.pictures = nn.Parameter(0.1 / GAIN * pictures)
            self.decoder = cell_decoder(inputs, width=layout.width, blocks=layout.blocks, cell=layout.cell)

    @property
    def architecture(self) -> str:
        """What it is made of, in one line."""
        of = self.layout
        return (
            f"plane features {self.size}: {of.points} planes of {of.columns} x {of.rows} x {of.channels} features, "
            f"D{2 * of.blocks + 2} W{of.width}, relu, pixel_shuffle x{self.cell}"
        )

    @property
    def cells_are_independent(self) -> bool:
        """True: a cell's pixels depend on its own ray alone."""
        return True

    def places(
        self, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"]
    ) -> Float[Tensor, "n k 2 r c"]:
        """Where rays meet the planes, in units of the windows: [-1, 1] inside, kept within [-2, 2]."""
        planes = SamplingPlanes(Bounds(self.bounds_centre, self.bounds_half_size), self.normal, self.offsets)
        met = meeting_points(planes, origins, directions).unsqueeze(2)
        along = (met * self.axes[:, :, None, None]).sum(3)
        centre, half = self.windows[:, 0, :, None, None], self.windows[:, 1, :, None, None]
        return ((along - centre) / half).clamp(-2, 2)

    def features_at(self, places: Float[Tensor, "n k 2 r c"]) -> Float[Tensor, "n f r c"]:
        """The planes' features at the places, bilinear, plane by plane."""
        n, k, _, r, c = places.shape
        # The planes are the batch and the images are rows, so that the pictures are not copied for every image.
        grid = places.permute(1, 0, 3, 4, 2).reshape(k, n * r, c, 2)
        found = nn.functional.grid_sample(
            self.pictures, grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        return found.reshape(k, -1, n, r, c).permute(2, 0, 1, 3, 4).flatten(1, 2)

    def from_rays(
        self, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Images, channels first, from the rays through the cells' centres."""
        places = self.places(origins, directions)
        where = places.flatten(1, 2)
        waves = [
            wave(where * 2.0**octave) for wave in (torch.sin, torch.cos) for octave in range(self.layout.frequencies)
        ]
        return self.decoder(torch.cat([GAIN * self.features_at(places), where, *waves], dim=1))

    def forward(self, cameras: Cameras, height: int, width: int) -> Float[Tensor, "n h w 3"]:
        """Images of n cameras, sRGB in [0, 1]; cells that reach beyond the border are cut."""
        return images_of(self, cameras, height=height, width=width)

    def header(self) -> dict[str, str]:
        """What a file of its weights says about how it is made."""
        return {"layout": json.dumps(asdict(self.layout)), "view_size": json.dumps(self.view_size)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], header: dict[str, str]) -> "PlaneFeatures":
        """The network that `state_dict()` and `header()` describe. KeyError, ValueError, RuntimeError on nonsense."""
        bounds = Bounds(tensors["bounds_centre"], tensors["bounds_half_size"])
        width, height = json.loads(header["view_size"])
        network = cls(
            SamplingPlanes(bounds, tensors["normal"], tensors["offsets"]),
            tensors["windows"],
            Layout(**json.loads(header["layout"])),
            view_size=(int(width), int(height)),
        )
        network.load_state_dict(tensors)
        return network


def layout_of(size: str) -> Layout:
    """The layout of a size; LightFieldError for one that is not known."""
    for layout in LAYOUTS:
        if layout.size == size:
            return layout
    raise LightFieldError(f"size {size!r} is not known; choose one of {', '.join(of.size for of in LAYOUTS)}")


def plane_features(
    teacher: RadianceField,
    cameras: Cameras,
    bounds: Bounds,
    *,
    layout: Layout | None = None,
    view_size: tuple[int, int] = (320, 240),
    seed: int = 0,
) -> PlaneFeatures:
    """An untrained student with planes through what the teacher shows the cameras; size S if no layout is given."""
    layout = layout or layout_of("S")
    planes = planes_through(teacher, cameras, bounds, points=layout.points, seed=seed)
    windows = windows_seen(planes, cameras, seed=seed)
    return PlaneFeatures(planes, windows, layout, view_size=view_size, seed=seed)
