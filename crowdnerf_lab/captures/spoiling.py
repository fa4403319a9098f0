"""A good crowd made bad on purpose: what blur, darkness, people in front and wrong poses cost, known exactly.

A fraction of the captures is spoiled, each in one of five ways in turn, all its photos alike. Screening sees what a
server would see: the pictures, and the poses that the phones report.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import convolve
from torch import Tensor

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Consent, Photo, Pose, ReportedPose
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.screening.screen import screen
from crowdnerf_lab.fields.appearance import linear_to_srgb, srgb_to_linear
from crowdnerf_lab.files import write_atomically
from crowdnerf_lab.pose_refinement import perturbed
from crowdnerf_lab.scene import PosedScene

Fault = Literal["blur", "dark", "occluded", "gps", "pose"]
BLUR_PX = 15
"""Length of the motion blur at 320 px; other sizes in proportion."""
DARK_STOPS = 5.0
READ_NOISE, SHOT_NOISE = 0.002, 0.0005
"""Noise of a dark photo in linear light: standard deviation in the black, variance per unit of light."""
GPS_M = 8.0
TURN = math.radians(5)


@dataclass(frozen=True)
class SpoiledScene:
    """A scene with bad captures. faults: what was done to each training photo, by row; absent where nothing was."""

    scene: PosedScene
    faults: dict[int, Fault]


def with_bad_captures(scene: PosedScene, *, fraction: float = 0.3, seed: int = 0) -> SpoiledScene:
    """The scene with a `fraction` of the captures of its training photos spoiled: blur, darkness, people in front,
    positions 8 m off, poses turned by 5 degrees. The same for the same seed."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    generator = np.random.default_rng(seed)
    owners = sorted({int(scene.capture_of_image[row]) for row in scene.train.tolist()})
    chosen = generator.permutation(owners)[: round(fraction * len(owners))].tolist()
    ways = get_args(Fault)
    fault_of: dict[int, Fault] = {owner: ways[place % len(ways)] for place, owner in enumerate(chosen)}
    faults: dict[int, Fault] = {
        row: fault_of[owner] for row in scene.train.tolist() if (owner := int(scene.capture_of_image[row])) in fault_of
    }
    images = list(scene.images)
    for row, fault in faults.items():
        images[row] = (_spoiled(scene.image(row), fault, generator) * 255).round().to(torch.uint8)
    cameras = scene.cameras
    for fault, turn, shift in (("gps", 0.0, GPS_M), ("pose", TURN, 0.0)):
        rows = torch.tensor([row for row, found in faults.items() if found == fault], dtype=torch.int64)
        cameras = perturbed(cameras, rows, turn=turn, shift=shift, seed=seed)
    return SpoiledScene(replace(scene, images=tuple(images), cameras=cameras), faults)


def moved_elsewhere(captures: CaptureSet, *, metres: float) -> tuple[str, CaptureSet]:
    """The captures with one UE's reports moved east by `metres`, as if it had not been there; and its pseudonym.

    Taken is the UE in the middle of those that report where they were. Raises CaptureError when none does.
    """
    able = [capture for capture in captures.captures if any(photo.reported or photo.gps for photo in capture.photos)]
    if not able:
        raise CaptureError(f"no phone of {captures.name} reports where it was; give captures with GPS")
    liar = able[len(able) // 2]
    lying = liar.model_copy(update={"photos": tuple(_moved(photo, metres) for photo in liar.photos)})
    everybody = tuple(lying if capture.ue == liar.ue else capture for capture in captures.captures)
    return liar.ue, replace(captures, captures=everybody)


def _moved(photo: Photo, metres: float) -> Photo:
    reported, gps = photo.reported, photo.gps
    if reported is not None:
        (a, b, c, east), north, up = reported.camera_to_world
        reported = reported.model_copy(update={"camera_to_world": ((a, b, c, east + metres), north, up)})
    if gps is not None:
        east, north, up = gps.position
        gps = gps.model_copy(update={"position": (east + metres, north, up)})
    return photo.model_copy(update={"reported": reported, "gps": gps})


def screened(scene: PosedScene, *, progress: bool = False) -> PosedScene:
    """The scene without the training photos that the screening rejects, going by the pictures and the scene's own
    poses as the phones would report them."""
    with tempfile.TemporaryDirectory(prefix="crowdnerf_lab_") as folder:
        captures = _as_captures(scene, Path(folder))
        kept = {photo.file for photo in screen(captures, progress=progress)[0].photos}
    rows = [row for row in scene.train.tolist() if _file_of(row) in kept]
    return scene.with_split(rows, scene.held_out.tolist())


def _spoiled(picture: Float[Tensor, "h w 3"], fault: Fault, generator: np.random.Generator) -> Float[Tensor, "h w 3"]:
    """A picture with a fault; wrong poses leave it as it is."""
    height, width = picture.shape[:2]
    if fault == "blur":
        length = max(3, round(BLUR_PX * max(height, width) / 320))
        return torch.from_numpy(
            convolve(picture.numpy(), _streak(length, generator.uniform(0, math.pi)), mode="nearest")
        )
    if fault == "dark":
        light = srgb_to_linear(picture) * 2**-DARK_STOPS
        deviation = torch.sqrt(SHOT_NOISE * light + READ_NOISE**2)
        noise = torch.from_numpy(generator.standard_normal(picture.shape, dtype=np.float32))
        return linear_to_srgb((light + deviation * noise).clamp(0, 1))
    if fault == "occluded":
        covered = picture.clone()
        covered[_head_and_shoulders(height, width, middle=generator.uniform(0.3, 0.7))] = 0.04
        return covered
    return picture


def _streak(length: int, angle: float) -> np.ndarray:
    """Kernel [k k 1] of motion along a line of `length` px."""
    reach = np.linspace(-length / 2, length / 2, 8 * length)
    half = length // 2 + 1
    side = 2 * half + 1
    columns, rows = (np.rint(reach * turn).astype(int) + half for turn in (math.cos(angle), math.sin(angle)))
    kernel = np.bincount(rows * side + columns, minlength=side * side).reshape(side, side, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def _head_and_shoulders(height: int, width: int, *, middle: float) -> Tensor:
    """Mask [h w] of somebody right in front: about a third of the picture."""
    v, u = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width) - middle, indexing="ij")
    head = (u / 0.14) ** 2 + ((v - 0.42) / 0.24) ** 2 < 1
    shoulders = (u / 0.36) ** 2 + ((v - 1.0) / 0.42) ** 2 < 1
    return head | shoulders


def _as_captures(scene: PosedScene, folder: Path) -> CaptureSet:
    """The training photos as a crowd would have sent them in."""
    rows = scene.train.tolist()
    owners = [int(scene.capture_of_image[row]) for row in rows]
    for row in rows:
        write_atomically(folder / _file_of(row), partial(_write_picture, scene, row))
    captures = tuple(
        Capture(
            ue=f"ue{owner}",
            device="unknown",
            consent=Consent(train=True, publish=False),
            licence="unpublished",
            photos=tuple(_photo(scene, row) for row, holder in zip(rows, owners, strict=True) if holder == owner),
        )
        for owner in dict.fromkeys(owners)
    )
    return CaptureSet(root=folder, name=scene.name, licence="unpublished", origin_wgs84=None, captures=captures)


def _photo(scene: PosedScene, row: int) -> Photo:
    height, width = scene.images[row].shape[:2]
    reported = ReportedPose(camera_to_world=_pose(scene.cameras.camera_to_world[row]))
    time_s = float(scene.time_of_image[row])
    return Photo(file=_file_of(row), width=width, height=height, focal_px=None, time_s=time_s, reported=reported)


def _pose(camera_to_world: Float[Tensor, "3 4"]) -> Pose:
    rows: Sequence[Sequence[float]] = camera_to_world.tolist()
    a, b, c = ((row[0], row[1], row[2], row[3]) for row in rows)
    return a, b, c


def _write_picture(scene: PosedScene, row: int, path: Path) -> None:
    Image.fromarray(scene.images[row].numpy()).save(path, format="PNG", compress_level=1)


def _file_of(row: int) -> str:
    return f"{row:05}.png"
