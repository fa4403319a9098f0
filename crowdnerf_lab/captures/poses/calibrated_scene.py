"""The scene to train on: photos with the cameras that calibration found, then the views a study compares against."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from crowdnerf_lab.cameras import Cameras, concatenated, pinhole
from crowdnerf_lab.captures.bundle import CaptureSet, Photo, Pose, ReferenceView
from crowdnerf_lab.captures.poses.taken_photos import TakenPhoto, picture
from crowdnerf_lab.captures.privacy.trainable_pixels import trainable_pixels
from crowdnerf_lab.scene import PosedScene, bounds_of

FEWEST_PHOTOS = 3
"""With fewer views nothing can be reconstructed."""
REFERENCE = "reference"
"""Name under which the reference views stand among a scene's captures."""


class CalibrationError(ValueError):
    """Captures that cannot be posed; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Found:
    """What calibration found for one photo: a batch of one camera, or why there is none. The rest: `CalibrationRow`."""

    camera: Cameras | None
    problem: str = ""
    reprojection_px: float = math.nan
    points: int = 0
    component: int | None = None


def ideal_camera(record: Photo | ReferenceView, pose: Pose, *, focal_px: float) -> Cameras:
    """A batch of one ideal camera."""
    camera = pinhole(torch.tensor([pose]), torch.tensor([focal_px]), width=record.width, height=record.height)
    if isinstance(record, Photo) and record.centre_px is not None:
        camera = replace(camera, centre=torch.tensor([record.centre_px]))
    return camera


def calibrated_scene(
    captures: CaptureSet, taken: Sequence[TakenPhoto], found: Sequence[Found], *, views: Sequence[ReferenceView]
) -> PosedScene:
    """The posed photos, then the views that the study compares against."""
    photos = [
        (shot, shot.image, known.camera)
        for shot, known in zip(taken, found, strict=True)
        if known.camera is not None and shot.image is not None
    ]
    if len(photos) < FEWEST_PHOTOS:
        problems = [known.problem for known in found if known.camera is None]
        raise CalibrationError(too_few(captures.name, len(photos), problems))
    views = [view for split in ("test", "test_beyond") for view in views if view.split == split]
    view_cameras = [ideal_camera(view, view.camera_to_world, focal_px=view.focal_px) for view in views]
    photo_cameras = concatenated([camera for _, _, camera in photos])
    ues = tuple(dict.fromkeys(shot.ue for shot, _, _ in photos))
    owners = [ues.index(shot.ue) for shot, _, _ in photos] + [len(ues)] * len(views)
    tests = sum(view.split == "test" for view in views)
    images = (
        *(image for _, image, _ in photos),
        *(picture(captures.path_of(view.file), view) for view in views),
    )
    return PosedScene(
        name=captures.name,
        image_names=(*(shot.photo.file for shot, _, _ in photos), *(view.file for view in views)),
        cameras=concatenated([photo_cameras, *view_cameras]),
        images=images,
        masks=trainable_pixels([*(shot.photo for shot, _, _ in photos), *views], images),
        bounds=bounds_of(photo_cameras),
        captures=ues + ((REFERENCE,) if views else ()),
        capture_of_image=torch.tensor(owners, dtype=torch.int64),
        time_of_image=torch.tensor([*(shot.photo.time_s for shot, _, _ in photos), *(view.time_s for view in views)]),
        train=torch.arange(len(photos)),
        held_out=torch.arange(len(photos), len(photos) + tests),
        origin_wgs84=captures.origin_wgs84,
    )


def too_few(name: str, posed: int, problems: Sequence[str]) -> str:
    found = f" (the first of {len(problems)} left out: {problems[0]})" if problems else ""
    return (
        f"{name}: {posed} photos can be posed, at least {FEWEST_PHOTOS} views of the same thing are needed and 10 or "
        f"more give a usable picture{found}; add photos, loosen the screening, or choose other poses"
    )
