"""LightSlab: a light field on factored feature planes (LightSpeed, Gupta et al., NeurIPS 2023).

A ray is where it meets two parallel planes: (u, v) on the far one, (s, t) on the near one. This is a light slab (Levoy
and Hanrahan 1996). Its features come from six pictures, one for each pair of the four coordinates (uv, st, us, vt, ut,
vs), looked up bilinearly at several resolutions; a small decoder makes them cell x cell pixels. What a look-up reads is
learned directly, so pictures come within seconds and a few layers do: from the concert's field, 24.5 dB to the teacher
on views between the captured ones after 40 s of one CPU thread, where the ray MLP S is at 23.0 dB; 25.6 dB after 120 s.

The planes lie where the scene's surfaces do, the far one through what is far (a screen, say), the near one through what
is near: what lies on a plane is a picture on it, and only its parallax is left to learn. LightSpeed's planes lie around
the scene instead. A ray and its reverse meet the same points, so a scene seen from several sides has a slab for each; a
ray goes to the slab whose normal it faces.

In a device's graph look-ups are GridSample nodes; geometry is plain arithmetic, without MatMul or Conv, so that no
quantizer touches coordinates.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import grid_sample, normalize

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.light_fields.decoder import cell_decoder
from crowdnerf_lab.light_fields.light_field import LightFieldError, images_of
from crowdnerf_lab.light_fields.planes import PARALLEL
from crowdnerf_lab.light_fields.surfaces import SeenSurfaces

PAIRS = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))
"""Coordinates (of u, v, s, t) that each of the six feature planes is looked up at: uv, st, us, vt, ut, vs."""
CELLS = (8, 4, 2)
MARGIN = 1.25
"""How far a feature plane reaches beyond its window, in windows; coordinates are contracted so as to end at 2."""
GAIN = 8.0
"""Features are stored divided by this: a step of Adam, of one rate for all weights, moves them so much more. Of rates
of 3e-3 for the decoder, 2e-2 for the features was best."""
CLUSTERING_ROUNDS = 8


@dataclass(frozen=True)
class SlabSize:
    """resolutions: cells along the feature planes' sides, one plane a resolution; features: of each; width, blocks: of
    the decoder; frequencies: sin and cos of each coordinate at octaves 0 to frequencies - 1."""

    resolutions: tuple[int, ...]
    features: int
    width: int
    blocks: int
    frequencies: int = 2


SIZES = {
    "XS": SlabSize(resolutions=(16, 64), features=4, width=48, blocks=2),
    "S": SlabSize(resolutions=(16, 32, 64, 128), features=4, width=96, blocks=3),
    "M": SlabSize(resolutions=(16, 32, 64, 128), features=8, width=128, blocks=4),
}


@dataclass(frozen=True)
class TwoPlanes:
    """Two parallel planes that rays are described by. Metres, world axes.

    centre: where offsets are counted from. axes: unit vectors right, down and normal (rows); the scene lies along the
    normal. offsets: of the far and the near plane along the normal. middles, half_sizes: of the window on each plane,
    along right and down, that holds what cameras see.
    """

    centre: Float[Tensor, "3"]
    axes: Float[Tensor, "3 3"]
    offsets: Float[Tensor, "2"]
    middles: Float[Tensor, "2 2"]
    half_sizes: Float[Tensor, "2 2"]


def slab_through(seen: SeenSurfaces, *, near: float = 0.3, far: float = 0.9) -> TwoPlanes:
    """Planes across the rays' mean direction, at the quantiles near and far of the depths along it.

    Raises LightFieldError for rays that go every way.
    """
    mean = seen.directions.mean(0)
    length = torch.linalg.vector_norm(mean)
    if not length > PARALLEL:
        raise LightFieldError(
            f"the {len(seen)} rays have no common direction (mean of length {float(length):.3f}); ask for more sides"
        )
    normal = mean / length
    # Any axis but the one most along the normal makes right and down well defined; the world's z is up (ENU).
    up = normal.new_tensor([0.0, 0.0, 1.0] if abs(float(normal[2])) < 0.9 else [0.0, 1.0, 0.0])
    right = normalize(torch.linalg.cross(normal, up), dim=0)
    axes = torch.stack([right, torch.linalg.cross(normal, right), normal])
    centre = seen.points.mean(0)
    heights = (seen.points - centre) @ normal
    offsets = torch.stack([heights.quantile(far), heights.quantile(near)])
    start, along = (seen.origins - centre) @ axes.T, seen.directions @ axes.T
    distances = (offsets[:, None] - start[:, 2]) / along[:, 2].clamp(min=PARALLEL)
    hits = start[:, :2] + along[:, :2] * distances[..., None]
    low, high = hits.quantile(0.01, dim=1), hits.quantile(0.99, dim=1)
    return TwoPlanes(centre, axes, offsets, (low + high) / 2, (high - low).clamp(min=1e-3) / 2)


def slabs_of(seen: SeenSurfaces, *, sides: int = 1) -> tuple[TwoPlanes, ...]:
    """A slab for each side that a scene is seen from: directions clustered by angle, the farthest apart to begin with.

    Raises LightFieldError for rays that do not come from so many sides.
    """
    normals = seen.directions[:1]
    for _ in range(sides - 1):
        facing = (seen.directions @ normals.T).amax(1)
        normals = torch.cat([normals, seen.directions[facing.argmin()][None]])
    for _ in range(CLUSTERING_ROUNDS):
        means = [group.directions.mean(0) for group in _facing(seen, normals)]
        normals = normalize(torch.stack(means), dim=1)
    return tuple(slab_through(group) for group in _facing(seen, normals))


def _facing(seen: SeenSurfaces, normals: Float[Tensor, "sides 3"]) -> list[SeenSurfaces]:
    """The rays that go along each normal more than along the others."""
    side = (seen.directions @ normals.T).argmax(1)
    if len(side.unique()) < len(normals):
        raise LightFieldError(f"the {len(seen)} rays do not come from {len(normals)} sides; ask for fewer")
    return [seen[torch.nonzero(side == i)[:, 0]] for i in range(len(normals))]


class LightSlab(nn.Module):
    """Six factored feature planes a slab -> decoder -> cell x cell pixels. size: see SIZES, cell: CELLS.

    The planes' features are put side by side, with the coordinates and a few of their frequencies; multiplying those of
    complementary planes (uv st, us vt, ut vs) instead was 0.3 dB worse with twice the weights. seed: of the weights.

    Like any network that knows rays, not pixels, it draws cells of the angular size that it was distilled with: ask it
    for images of about view_size (width, height), or for part of such a view.
    """

    centres: Float[Tensor, "slabs 3"]
    axes: Float[Tensor, "slabs 3 3"]
    offsets: Float[Tensor, "slabs 2"]
    middles: Float[Tensor, "slabs 2 2"]
    half_sizes: Float[Tensor, "slabs 2 2"]

    def __init__(
        self,
        slabs: Sequence[TwoPlanes],
        size: str = "S",
        *,
        cell: int = 4,
        view_size: tuple[int, int] = (320, 240),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise LightFieldError(f"size {size!r} is not known; choose one of {', '.join(SIZES)}")
        if cell not in CELLS:
            raise LightFieldError(f"cells of {cell} are not known; choose one of {', '.join(map(str, CELLS))}")
        self.size, self.cell, self.view_size = size, cell, view_size
        for name, parts in (
            ("centres", [slab.centre for slab in slabs]),
            ("axes", [slab.axes for slab in slabs]),
            ("offsets", [slab.offsets for slab in slabs]),
            ("middles", [slab.middles for slab in slabs]),
            ("half_sizes", [slab.half_sizes for slab in slabs]),
        ):
            self.register_buffer(name, torch.stack(parts))
        shape = SIZES[size]
        inputs = len(PAIRS) * shape.features * len(shape.resolutions) + 4 * (2 * shape.frequencies + 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.feature_planes = nn.ParameterList(
                nn.Parameter(torch.empty(len(PAIRS), shape.features, side, side).uniform_(-0.1, 0.1) / GAIN)
                for _ in slabs
                for side in shape.resolutions
            )
            self.decoder = cell_decoder(inputs, width=shape.width, blocks=shape.blocks, cell=cell)

    @property
    def architecture(self) -> str:
        """What it is made of, in one line."""
        shape = SIZES[self.size]
        sides = "/".join(map(str, shape.resolutions))
        return (
            f"light slab {self.size}: {len(self.centres)} of 6 planes of {sides} cells a side with {shape.features} "
            f"features, decoder of {shape.blocks} blocks W{shape.width}, pixel_shuffle x{self.cell}"
        )

    @property
    def cells_are_independent(self) -> bool:
        """Always: no ray sees another."""
        return True

    def coordinates(
        self, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"], *, slab: int
    ) -> Float[Tensor, "n 4 r c"]:
        """(u, v, s, t) of rays: in [-1, 1] inside the planes' windows, contracted to [-2, 2] outside.

        The contraction is Mip-NeRF 360's (Barron et al. 2022), each coordinate for itself: x (2 - 1/|x|) / |x|.
        """
        start = _turned(origins - self.centres[slab, :, None, None], self.axes[slab])
        along = _turned(directions, self.axes[slab])
        slope = along[:, :2] / along[:, 2:].clamp(min=PARALLEL)
        middles, half_sizes = self.middles[slab, :, :, None, None], self.half_sizes[slab, :, :, None, None]
        hits = [start[:, :2] + slope * (offset - start[:, 2:]) for offset in self.offsets[slab]]
        scaled = torch.cat([(hit - middles[i]) / half_sizes[i] for i, hit in enumerate(hits)], dim=1)
        size = scaled.abs().clamp(min=1)
        return scaled * (2 - 1 / size) / size

    def features(self, coordinates: Float[Tensor, "n 4 r c"], *, slab: int) -> Float[Tensor, "n f r c"]:
        """What the decoder is given of rays: look-ups in the feature planes, coordinates and their frequencies."""
        n, _, rows, columns = coordinates.shape
        first, second = zip(*PAIRS, strict=True)
        places = torch.stack([coordinates[:, list(first)], coordinates[:, list(second)]], dim=-1) / MARGIN
        places = places.transpose(0, 1).reshape(len(PAIRS), n * rows, columns, 2)
        count = len(SIZES[self.size].resolutions)
        looked_up = [
            grid_sample(planes, places, padding_mode="border", align_corners=True)
            .reshape(-1, n, rows, columns)
            .transpose(0, 1)
            for planes in list(self.feature_planes)[slab * count : (slab + 1) * count]
        ]
        features = GAIN * torch.cat(looked_up, dim=1)
        octaves = [coordinates * 2.0**octave for octave in range(SIZES[self.size].frequencies)]
        return torch.cat([features, coordinates, *map(torch.sin, octaves), *map(torch.cos, octaves)], dim=1)

    def facing(self, directions: Float[Tensor, "n 3 r c"]) -> Bool[Tensor, "n slabs r c"]:
        """The slab that each ray belongs to: the one whose normal it goes along the most."""
        cosines = torch.cat([_turned(directions, axes)[:, 2:] for axes in self.axes], dim=1)
        return torch.arange(len(self.axes))[:, None, None] == cosines.argmax(1, keepdim=True)

    def from_rays(
        self, origins: Float[Tensor, "n 3 #r #c"], directions: Float[Tensor, "n 3 r c"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Images, channels first, from the rays through the cells' centres."""
        features = self.features(self.coordinates(origins, directions, slab=0), slab=0)
        if len(self.centres) > 1:
            facing = self.facing(directions)
            for slab in range(1, len(self.centres)):
                other = self.features(self.coordinates(origins, directions, slab=slab), slab=slab)
                features = torch.where(facing[:, slab : slab + 1], other, features)
        return self.decoder(features)

    def forward(self, cameras: Cameras, height: int, width: int) -> Float[Tensor, "n h w 3"]:
        """Images of n cameras, sRGB in [0, 1]; cells that reach beyond the border are cut."""
        return images_of(self, cameras, height=height, width=width)

    def header(self) -> dict[str, str]:
        """What a file of its weights says about how it is made."""
        return {"size": self.size, "cell": str(self.cell), "view_size": json.dumps(self.view_size)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], header: dict[str, str]) -> "LightSlab":
        """The network that `state_dict()` and `header()` describe. KeyError, ValueError, RuntimeError on nonsense."""
        stacked = (tensors[name] for name in ("centres", "axes", "offsets", "middles", "half_sizes"))
        slabs = [TwoPlanes(*parts) for parts in zip(*stacked, strict=True)]
        width, height = json.loads(header["view_size"])
        network = cls(slabs, header["size"], cell=int(header["cell"]), view_size=(int(width), int(height)))
        network.load_state_dict(tensors)
        return network


def _turned(vectors: Float[Tensor, "n 3 r c"], axes: Float[Tensor, "3 3"]) -> Float[Tensor, "n 3 r c"]:
    """Vectors in the frame whose unit vectors are the rows of axes; as sums, not as a MatMul."""
    return (axes[:, :, None, None] * vectors[:, None]).sum(2)
