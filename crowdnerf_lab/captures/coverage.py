"""What the crowd has not seen: which photos show each cell of the scene, and where one more photo would help most.

A photo shows a cell when the cell's centre lies in its picture and no matter lies before it. Matter is the field's:
its depth along a coarse grid of each photo's rays serves as a shadow map (Williams 1978), so the cost is that of
rendering small pictures. Views to ask for are chosen one after the other, each for what the photos and the views
before it leave open (next best view; Connolly 1985). Only the frontier counts (Yamauchi 1997): what borders on air
that photos show; the insides of things and the ground are no gaps.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, look_at, pinhole, project
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.rays import image_rays
from crowdnerf_lab.scene import Bounds, PosedScene

SHADOW_SIDE = 40
"""Rays along the longer side of a shadow map."""
OPAQUE = 0.5
"""Opacity from which a ray has hit something."""
ASKED_VIEW = math.radians(60)
"""Field of view, across the picture's width, of a photo that is asked for: an ordinary phone's."""


@dataclass(frozen=True)
class CoverageSettings:
    """When a cell counts as seen well. photos: by how many; spread: from directions this far apart (radians, RMS
    angle to their mean), since one direction tells no depth. opacity: of a cell that holds matter."""

    photos: int = 3
    spread: float = math.radians(5)
    opacity: float = 0.5


@dataclass(frozen=True)
class Coverage:
    """What the photos show of a box of cells.

    photos: how many show a cell. spread: RMS angle of their directions to the mean, radians. matter: cells that the
    field fills. low: the box's lowest corner, metres; size: a cell's sides, metres.
    """

    photos: Int[Tensor, "x y z"]
    spread: Float[Tensor, "x y z"]
    matter: Bool[Tensor, "x y z"]
    low: Float[Tensor, "3"]
    size: Float[Tensor, "3"]
    settings: CoverageSettings

    @property
    def centres(self) -> Float[Tensor, "x y z 3"]:
        """Middles of the cells, metres."""
        index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in self.photos.shape), indexing="ij"), dim=-1)
        return self.low + (index + 0.5) * self.size

    @property
    def cell_volume(self) -> float:
        """Cubic metres."""
        return float(self.size.prod())

    @property
    def unseen(self) -> Bool[Tensor, "x y z"]:
        """Cells that no photo shows: hidden, outside every picture, or inside something."""
        return self.photos == 0

    @property
    def frontier(self) -> Bool[Tensor, "x y z"]:
        """Cells that border on air that photos show."""
        air = ((self.photos > 0) & ~self.matter).float()
        return torch.nn.functional.max_pool3d(air[None, None], 3, stride=1, padding=1)[0, 0] > 0

    @property
    def need(self) -> Float[Tensor, "x y z"]:
        """What is missing of a cell, in [0, 1]: 1 at the frontier where no photo shows it; 0 where enough photos show
        it from enough sides, where it is seen to be empty, and away from the frontier."""
        enough = (self.photos / self.settings.photos).clamp(max=1) * (self.spread / self.settings.spread).clamp(max=1)
        # A single view has no spread and yet tells something.
        told = torch.maximum(enough, 0.5 * (self.photos / self.settings.photos).clamp(max=1))
        return torch.where((self.matter | self.unseen) & self.frontier, 1 - told, 0.0)


@dataclass(frozen=True)
class Request:
    """A photo to ask for: from `position` towards `target`, ENU metres.

    gain: cubic metres it would show that are missing now, each weighted by how much of it is missing; unseen: cubic
    metres among them that no photo shows. why: the same in words.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    gain: float
    unseen: float
    why: str


def coverage(
    field: RadianceField,
    scene: PosedScene,
    *,
    region: Bounds | None = None,
    cells: int = 40,
    settings: CoverageSettings | None = None,
) -> Coverage:
    """Which cells of the region (the scene's bounds) its training photos show; `cells` along its longest side."""
    region, settings = region or scene.bounds, settings or CoverageSettings()
    counts = (cells * region.half_size / region.half_size.max()).round().clamp(min=1)
    size, counts = 2 * region.half_size / counts, [int(n) for n in counts]
    blank = Coverage(
        photos=torch.zeros(counts, dtype=torch.int64),
        spread=torch.zeros(counts),
        matter=torch.zeros(counts, dtype=torch.bool),
        low=region.centre - region.half_size,
        size=size,
        settings=settings,
    )
    centres = blank.centres.reshape(-1, 3)
    photos, directions = torch.zeros(len(centres), dtype=torch.int64), torch.zeros(len(centres), 3)
    for index in scene.train.tolist():
        camera = scene.cameras[index : index + 1]
        shown = shown_by(field, camera, centres, slack=float(size.max()))
        photos += shown
        towards = torch.nn.functional.normalize(centres - camera.positions, dim=-1)
        directions += towards * shown[:, None]
    resultant = torch.linalg.vector_norm(directions, dim=-1) / photos.clamp(min=1)
    # For directions near each other 1 - R is half the mean square of their angles to the mean (Mardia and Jupp 2000).
    spread = torch.where(photos > 1, (2 * (1 - resultant).clamp(min=0)).sqrt(), 0.0)
    return Coverage(
        photos=photos.reshape(counts),
        spread=spread.reshape(counts),
        matter=_matter(field, blank).reshape(counts),
        low=blank.low,
        size=blank.size,
        settings=settings,
    )


@torch.no_grad()
def shown_by(field: RadianceField, camera: Cameras, points: Float[Tensor, "n 3"], *, slack: float) -> Bool[Tensor, "n"]:
    """Which points a photo shows: in the picture, and at most `slack` metres behind the first matter before them.

    camera: a batch of one.
    """
    width, height = int(camera.width), int(camera.height)
    scale = SHADOW_SIDE / max(width, height)
    width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    small = camera.resized(width, height)
    rays = image_rays(small, 0)
    rendered = field.render(rays.flattened())
    hit = torch.where(rendered.opacity > OPAQUE, rendered.depth, torch.inf).reshape(rays.batch_shape)
    pixels, depth = project(small[torch.zeros(len(points), dtype=torch.int64)], points)
    inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    u, v = pixels[:, 0].nan_to_num().clamp(0, width - 1).long(), pixels[:, 1].nan_to_num().clamp(0, height - 1).long()
    away = torch.linalg.vector_norm(points - small.positions, dim=-1)
    return inside & (away <= hit[v, u] + slack)


def requests(
    field: RadianceField,
    scene: PosedScene,
    covered: Coverage,
    *,
    count: int = 5,
    standpoints: Float[Tensor, "m 3"] | None = None,
) -> tuple[Request, ...]:
    """Up to `count` photos to ask for, the most useful first.

    standpoints: where a phone can be held; by default a net over where the crowd stood. Every standpoint is tried
    towards the largest gaps. Views that would add nothing are not asked for.
    """
    standing = standpoints_of(scene) if standpoints is None else standpoints
    centres, need = covered.centres.reshape(-1, 3), covered.need.reshape(-1).clone()
    targets = _gaps(covered)
    if len(standing) == 0 or len(targets) == 0:
        return ()
    eyes = standing.repeat_interleave(len(targets), dim=0)
    aims = targets.repeat(len(standing), 1)
    apart = torch.linalg.vector_norm(aims - eyes, dim=-1) > float(covered.size.max())
    eyes, aims = eyes[apart], aims[apart]
    focal = torch.full((len(eyes),), 32 / (2 * math.tan(ASKED_VIEW / 2)))
    cameras = pinhole(look_at(eyes, aims), focal, width=32, height=24)
    slack = float(covered.size.max())
    shown = torch.stack([shown_by(field, cameras[i : i + 1], centres, slack=slack) for i in range(len(cameras))])
    asked = []
    for _ in range(count):
        gains = shown.to(need) @ need
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        fresh = shown[best] & covered.unseen.reshape(-1) & (need == 1)
        asked.append(_request(eyes[best], aims[best], float(gains[best]), int(fresh.sum()), covered.cell_volume))
        need[shown[best]] = (need[shown[best]] - 1 / covered.settings.photos).clamp(min=0)
    return tuple(asked)


def standpoints_of(scene: PosedScene, *, spacing: float | None = None) -> Float[Tensor, "m 3"]:
    """A net of places over where the crowd stood, at the height of the nearest camera; spacing in metres (a tenth of
    the crowd's extent by default). Places further than 1.5 spacings from every camera are left out."""
    positions = scene.cameras.positions[scene.train]
    low, high = positions.amin(0), positions.amax(0)
    spacing = spacing or max(float((high - low)[:2].max()) / 10, 0.5)
    net = torch.cartesian_prod(
        *(torch.arange(float(low[axis]) - spacing / 2, float(high[axis]) + spacing, spacing) for axis in (0, 1))
    )
    distance, nearest = torch.cdist(net, positions[:, :2]).min(1)
    near = distance <= 1.5 * spacing
    return torch.cat([net[near], positions[nearest[near], 2:]], dim=-1)


def _matter(field: RadianceField, covered: Coverage) -> Bool[Tensor, "n"]:
    """Cells whose densest of eight points would make a whole cell opaque."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.25, 0.25])] * 3) * covered.size
    centres = covered.centres.reshape(-1, 3)
    with torch.no_grad():
        density = torch.stack([field.density(centres + corner) for corner in corners]).amax(0)
    return 1 - torch.exp(-density * covered.size.min()) > covered.settings.opacity


def _gaps(covered: Coverage, *, most: int = 6) -> Float[Tensor, "m 3"]:
    """Centres of the largest blocks of missing cells, the box being cut into 4 x 4 x 4 blocks."""
    need = covered.need
    index = torch.stack(torch.meshgrid(*(torch.arange(n) * 4 // n for n in need.shape), indexing="ij"), dim=-1)
    block = ((index[..., 0] * 4 + index[..., 1]) * 4 + index[..., 2]).reshape(-1)
    weight = need.reshape(-1)
    sums = torch.zeros(64).index_add(0, block, weight)
    moments = torch.zeros(64, 3).index_add(0, block, weight[:, None] * covered.centres.reshape(-1, 3))
    largest = sums.argsort(descending=True)[:most]
    largest = largest[sums[largest] > 0]
    return moments[largest] / sums[largest, None]


def _request(
    position: Float[Tensor, "3"], target: Float[Tensor, "3"], gain: float, fresh: int, volume: float
) -> Request:
    east, north, up = (round(value, 1) for value in position.tolist())
    heading = math.degrees(math.atan2(float(target[0] - position[0]), float(target[1] - position[1]))) % 360
    words = (
        f"from {east} m east, {north} m north, {up} m up, heading {heading:.0f} degrees: "
        f"{fresh * volume:.1f} m3 that no photo shows, {gain * volume:.1f} m3 missing in all"
    )
    return Request(
        position=(float(position[0]), float(position[1]), float(position[2])),
        target=(float(target[0]), float(target[1]), float(target[2])),
        gain=gain * volume,
        unseen=fresh * volume,
        why=words,
    )
