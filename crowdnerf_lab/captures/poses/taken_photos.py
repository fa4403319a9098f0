"""The photos of captures with their pixels, and what their phones tell of where they were taken."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Metres3, Photo, Pose, ReferenceView
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.poses.motion import Shot
from crowdnerf_lab.captures.poses.pair_selection import Sighting
from crowdnerf_lab.captures.poses.world_fit import Whereabouts

UNKNOWN_DEVICES = ("", "unknown")
"""Names of devices that tell nothing about the lens."""


@dataclass(frozen=True)
class TakenPhoto:
    """A photo of a capture with its pixels, or with what keeps them away."""

    ue: str
    device: str
    photo: Photo
    image: UInt8[Tensor, "_ _ 3"] | None
    problem: str


def taken_photos(captures: CaptureSet, kind: Literal["spoiled", "clean"]) -> list[TakenPhoto]:
    """Every photo, or its clean twin, UE after UE; those without consent or readable picture say so."""
    return [_taken(captures, capture, photo, kind) for capture in captures.captures for photo in capture.photos]


def _taken(captures: CaptureSet, capture: Capture, photo: Photo, kind: Literal["spoiled", "clean"]) -> TakenPhoto:
    file = photo.file if kind == "spoiled" else photo.truth and photo.truth.clean_file
    image, problem = None, ""
    if not capture.consent.train:
        problem = f"{capture.ue} does not consent to training"
    elif file is None:
        problem = f"{photo.file} has no clean twin"
    else:
        try:
            image = picture(captures.path_of(file), photo)
        except PhotoError as error:
            problem = str(error)
    return TakenPhoto(capture.ue, capture.device, photo, image=image, problem=problem)


def picture(path: Path, record: Photo | ReferenceView) -> UInt8[Tensor, "_ _ 3"]:
    """A picture of the size that its record, and so its focal length, is for."""
    image = read_photo(path)
    height, width = image.shape[:2]
    if (width, height) != (record.width, record.height):
        raise PhotoError(
            f"{path} is {width}x{height}, its manifest says {record.width}x{record.height}; correct the manifest"
        )
    return image


def shot_of(taken: TakenPhoto, image: UInt8[Tensor, "_ _ 3"]) -> Shot:
    """The photo as structure from motion takes it. Phones of one model that say the same focal length share a lens."""
    photo = taken.photo
    shares = photo.focal_px is not None and taken.device.lower() not in UNKNOWN_DEVICES
    return Shot(
        phone=taken.ue,
        image=image,
        focal_px=photo.focal_px,
        centre_px=photo.centre_px,
        given=photo.camera,
        lens=taken.device if shares else None,
        sighting=Sighting(
            phone=taken.ue,
            time_s=photo.time_s,
            position=_position(photo),
            forward=_forward(photo),
            half_view=0.0,
        ),
    )


def whereabouts_of(taken: TakenPhoto) -> Whereabouts:
    """What the phone reports of the photo."""
    photo = taken.photo
    return Whereabouts(
        phone=taken.ue,
        position=_position(photo),
        accuracy_m=photo.gps and photo.gps.accuracy_m,
        attitude=photo.reported and tuple(row[:3] for row in photo.reported.camera_to_world),
        heading=photo.gps and photo.gps.heading,
    )


def believed_pose(photo: Photo) -> Pose | None:
    """Where the phone says the camera was, upright and level where it knows no more than place and heading."""
    if photo.reported is not None:
        return photo.reported.camera_to_world
    if photo.gps is None or photo.gps.heading is None:
        return None
    (east, north, up), sine, cosine = photo.gps.position, math.sin(photo.gps.heading), math.cos(photo.gps.heading)
    return (cosine, 0.0, sine, east), (-sine, 0.0, cosine, north), (0.0, -1.0, 0.0, up)


def _position(photo: Photo) -> Metres3 | None:
    if photo.reported is not None:
        east, north, up = (row[3] for row in photo.reported.camera_to_world)
        return east, north, up
    return photo.gps and photo.gps.position


def _forward(photo: Photo) -> Metres3 | None:
    """Where the phone says it looked."""
    pose = believed_pose(photo)
    return pose and (pose[0][2], pose[1][2], pose[2][2])
