"""What models are measured against, and at which poses: held-out views, probe views, calibration inputs.

Devices draw the views of ideal lenses, so photos of others are resampled to one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, distorted, pixel_grid
from crowdnerf_lab.catalogue.card import Probe
from crowdnerf_lab.devices.measure import intrinsics
from crowdnerf_lab.fields.sh_grid import SHGrid
from crowdnerf_lab.pseudo_views import viewing_cameras
from crowdnerf_lab.rendering import render_view
from crowdnerf_lab.scene import PosedScene

PROBES = 2
CALIBRATION_VIEWS = 16
"""Captured poses over which int8 activations get their ranges; more changed nothing in 0.05 dB."""


@dataclass(frozen=True)
class Reference:
    """What models are measured against: held-out views, their photos, and the teacher's pictures of them."""

    cameras: Cameras
    photos: tuple[Float[Tensor, "_ _ 3"], ...]
    teacher: tuple[Float[Tensor, "_ _ 3"], ...]


def reference_of(field: SHGrid, scene: PosedScene, *, views: int = 0) -> Reference:
    """The scene's held-out views (`views` of them, evenly chosen; 0: all) as photos and as the teacher shows them.

    Devices draw the views of ideal lenses, so photos of others are resampled to one.
    """
    rows = scene.held_out
    if 0 < views < len(rows):
        rows = rows[torch.linspace(0, len(rows) - 1, views).round().long()]
    photographed = scene.cameras[rows]
    ideal = replace(photographed, distortion=torch.zeros_like(photographed.distortion))
    return Reference(
        cameras=ideal,
        photos=tuple(through_ideal_lens(scene.image(int(row)), scene.cameras, int(row)) for row in rows),
        teacher=tuple(render_view(field, ideal, i).colour for i in range(len(rows))),
    )


def through_ideal_lens(photo: Float[Tensor, "h w 3"], cameras: Cameras, index: int) -> Float[Tensor, "h w 3"]:
    """The photo of camera `index` as its lens without distortion would show it: bilinear, edges repeated."""
    height, width, _ = photo.shape
    focal, centre, distortion = cameras.focal[index], cameras.centre[index], cameras.distortion[index]
    if not bool(distortion.any()):
        return photo
    plane = (pixel_grid(width, height).to(focal) - centre) / focal
    seen = distorted(plane, distortion.expand(height, width, 4)) * focal + centre
    grid = 2 * seen / torch.tensor([width, height]).to(seen) - 1
    planes = torch.nn.functional.grid_sample(
        photo.permute(2, 0, 1)[None], grid[None], padding_mode="border", align_corners=False
    )
    return planes[0].permute(1, 2, 0)


def calibration_feeds(scene: PosedScene, *, width: int, height: int) -> list[dict[str, NDArray[np.float32]]]:
    """Inputs of a light field's graph at captured poses: int8 activations get their ranges there."""
    rows = scene.train[torch.linspace(0, len(scene.train) - 1, CALIBRATION_VIEWS).round().long().unique()]
    cameras = viewing_cameras(scene.cameras[rows], width=width, height=height)
    return [
        {
            "camera_to_world": cameras.camera_to_world[i].numpy(),
            "focal": cameras.focal[i].numpy(),
            "centre": cameras.centre[i].numpy(),
        }
        for i in range(len(cameras))
    ]


def write_probes(
    field: SHGrid, scene: PosedScene, folder: Path, *, width: int, height: int, rows: Sequence[int] = ()
) -> tuple[Probe, ...]:
    """Views that a receiver can measure with, as the teacher shows them; their pictures are written to the folder.

    rows: images of the scene to take the poses of; by default the first PROBES held-out ones, or trained-on ones.
    """
    chosen = torch.tensor(rows) if rows else (scene.held_out if len(scene.held_out) else scene.train)[:PROBES]
    cameras = viewing_cameras(scene.cameras[chosen], width=width, height=height)
    probes = []
    for i in range(len(chosen)):
        colour = render_view(field, cameras, i).colour
        path = f"probe_{i}.png"
        Image.fromarray((colour * 255).round().to(torch.uint8).numpy()).save(Path(folder) / path)
        pose, focal, centre = intrinsics(cameras, i, width=width, height=height)
        probes.append(Probe(path=path, camera_to_world=tuple(map(tuple, pose.tolist())), focal=focal, centre=centre))
    return tuple(probes)
