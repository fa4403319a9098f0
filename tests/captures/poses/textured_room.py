"""Pictures of a room that is papered with noise, taken with known cameras: real parallax, and nothing looks alike."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from crowdnerf_lab.cameras import Cameras, look_at, pinhole, pixel_grid
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Consent, GpsFix, Photo, Truth
from crowdnerf_lab.rays import rays_through

WIDTH, HEIGHT, FOCAL = 160, 120, 125.0
HALF = 4.0
"""The room is a cube, its walls this far from the middle, in metres."""


def wallpaper(seed: int) -> Float[Tensor, "6 1 512 512"]:
    """Noise of several sizes, another for each wall."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(6, 1, 512 // size, 512 // size, generator=generator) for size in (8, 16, 32, 64)]
    grown = [interpolate(layer, size=(512, 512), mode="bicubic", align_corners=False) for layer in layers]
    return sum(grown[1:], grown[0]).div(len(layers)).sub(0.5).mul(2.5).add(0.5).clamp(0, 1)


def pictures(cameras: Cameras, *, seed: int = 0) -> list[UInt8[Tensor, "h w 3"]]:
    """What cameras inside the room see."""
    paper = wallpaper(seed)
    return [_picture(cameras[row : row + 1], paper) for row in range(len(cameras))]


def _picture(camera: Cameras, paper: Float[Tensor, "6 1 512 512"]) -> UInt8[Tensor, "h w 3"]:
    pixels = pixel_grid(WIDTH, HEIGHT).reshape(-1, 2)
    rays = rays_through(camera, torch.zeros(len(pixels), dtype=torch.int64), pixels)
    distances = (HALF * rays.directions.sign() - rays.origins) / rays.directions
    distance, axis = distances.min(dim=-1)
    hits = (rays.origins + distance[:, None] * rays.directions) / HALF
    walls = 2 * axis + (rays.directions.gather(1, axis[:, None])[:, 0] > 0)
    across = torch.stack([hits[:, 1], hits[:, 0], hits[:, 0]], dim=-1).gather(1, axis[:, None])
    upward = torch.stack([hits[:, 2], hits[:, 2], hits[:, 1]], dim=-1).gather(1, axis[:, None])
    places = torch.cat([across, upward], dim=-1)
    grey = torch.zeros(len(pixels))
    for wall in range(6):
        chosen = walls == wall
        grey[chosen] = grid_sample(paper[wall : wall + 1], places[chosen][None, None], align_corners=False)[0, 0, 0]
    return (grey * 255).round().to(torch.uint8).reshape(HEIGHT, WIDTH, 1).expand(-1, -1, 3).contiguous()


def walk(count: int, *, seed: int = 0) -> Cameras:
    """People standing about on one side of the room, who look at the other."""
    generator = torch.Generator().manual_seed(seed)
    eyes = torch.rand(count, 3, generator=generator) * torch.tensor([4.0, 1.5, 1.0]) - torch.tensor([2.0, 3.5, 0.5])
    targets = torch.rand(count, 3, generator=generator) * 1.5 + torch.tensor([-0.75, 3.0, -0.75])
    return pinhole(look_at(eyes, targets), torch.full((count,), FOCAL), width=WIDTH, height=HEIGHT)


def turning(count: int) -> Cameras:
    """Somebody who turns on the spot."""
    angles = torch.linspace(-math.pi / 6, math.pi / 6, count)
    eyes = torch.tensor([0.3, -2.0, 0.1]).expand(count, 3)
    targets = eyes + torch.stack([angles.sin(), angles.cos(), 0.1 * angles], dim=-1)
    return pinhole(look_at(eyes, targets), torch.full((count,), FOCAL), width=WIDTH, height=HEIGHT)


def captures_in(root: Path, rooms: Sequence[tuple[Cameras, int]], *, spread: float = 1.0) -> CaptureSet:
    """Photos of rooms (cameras and the wallpaper's seed), one UE a camera, with GPS of 5 cm and no attitude.

    spread: the world is this many times as large as the rooms. Room after room stands 100 m further east.
    """
    captures = []
    for number, (cameras, seed) in enumerate(rooms):
        for row, image in enumerate(pictures(cameras, seed=seed)):
            name = f"room{number}-{row:02d}"
            Image.fromarray(image.numpy()).save(root / f"{name}.png")
            pose = cameras.camera_to_world[row].clone()
            pose[:, 3] = spread * pose[:, 3] + torch.tensor([100.0 * number, 0.0, 0.0])
            captures.append(_capture(name, pose))
    return CaptureSet(root, name="room", licence="CC0-1.0", origin_wgs84=None, captures=tuple(captures))


def _capture(name: str, pose: Float[Tensor, "3 4"]) -> Capture:
    truth = Truth(
        camera_to_world=tuple(map(tuple, pose.tolist())),
        exposure_ev=0.0,
        white_balance=(1.0, 1.0, 1.0),
        blur_px=0.0,
        spoiled_by=None,
        occluded=0.0,
        clean_file=None,
        occluder_mask_file=None,
    )
    photo = Photo(
        file=f"{name}.png",
        width=WIDTH,
        height=HEIGHT,
        focal_px=FOCAL,
        time_s=0.0,
        gps=GpsFix(position=tuple(pose[:, 3].tolist()), accuracy_m=0.05),
        truth=truth,
    )
    consent = Consent(train=True, publish=True)
    return Capture(ue=name, device="unknown", consent=consent, licence="CC0-1.0", photos=(photo,))
