"""What all exports with poses have in common: pictures, a pose and a lens for each, and entries that are left out."""

import itertools
import logging
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from crowdnerf_lab.cameras import invalid_poses
from crowdnerf_lab.captures.bundle import (
    Capture,
    CaptureSet,
    Consent,
    Coordinates,
    GivenCamera,
    LeftOut,
    Photo,
    Pose,
    Source,
)
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.lens import Lens
from crowdnerf_lab.captures.formats.orientation import UPRIGHT, can_be_turned, turned
from crowdnerf_lab.captures.formats.pictures import Picture

logger = logging.getLogger(__name__)

OWN_USE = Consent(train=True, publish=False)
"""What is taken for granted of files that somebody reads for himself."""
_ASPECT_TOLERANCE = 0.02
"""How far a picture's proportions may be from the lens's: halving an odd size rounds by a pixel."""


def calibrated_photo(
    picture: Picture,
    camera_to_world: Float[Tensor, "3 4"],
    lens: Lens,
    *,
    file: Path,
    time_s: float = 0.0,
    split: Literal["train", "val", "test"] | None = None,
) -> Photo | LeftOut:
    """A photo with its camera (OpenCV axes), the intrinsics scaled to the picture as it was found.

    A lens of the picture as stored, before its EXIF orientation turned it upright, is turned with it; so is one that
    fits either way. file: what tells of the camera, for the reason why a photo is left out.
    """
    size = (picture.width, picture.height)
    lens_size = lens.size or (picture.stored[0] * picture.shrunk, picture.stored[1] * picture.shrunk)
    if picture.orientation != UPRIGHT and _fits(picture.stored, lens_size):
        if not can_be_turned(picture.orientation):
            return LeftOut(picture.file, f"{file}: {picture.file} is mirrored by its EXIF orientation; save it upright")
        camera_to_world, lens = turned(camera_to_world, lens, orientation=picture.orientation, size=lens_size)
        lens_size = lens.size or size
    centre = lens.centre_px or (lens_size[0] / 2, lens_size[1] / 2)
    problem = _problem(size, camera_to_world, lens, lens_size=lens_size, centre=centre)
    if problem:
        return LeftOut(picture.file, f"{file}: {picture.file} {problem}")
    scale = (size[0] / lens_size[0], size[1] / lens_size[1])
    try:
        camera = GivenCamera(
            camera_to_world=_rows(camera_to_world),
            focal_px=(lens.focal_px[0] * scale[0], lens.focal_px[1] * scale[1]),
            centre_px=(centre[0] * scale[0], centre[1] * scale[1]),
            distortion=lens.distortion,
        )
        return Photo(
            file=picture.file,
            width=size[0],
            height=size[1],
            focal_px=sum(camera.focal_px) / 2,
            centre_px=camera.centre_px,
            time_s=time_s,
            camera=camera,
            split=split,
        )
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return LeftOut(picture.file, f"{file}: {picture.file} has numbers that cannot be ({wrong}); correct them")


def _problem(
    size: tuple[int, int],
    camera_to_world: Float[Tensor, "3 4"],
    lens: Lens,
    *,
    lens_size: tuple[float, float],
    centre: tuple[float, float],
) -> str:
    """What keeps a camera from being used; empty when nothing does."""
    # In single precision, in which scenes are trained.
    numbers = torch.tensor([*lens.focal_px, *lens_size, *centre, *lens.distortion], dtype=torch.float32)
    if not bool(torch.isfinite(numbers).all()) or not bool((numbers[:4] > 0).all()):
        return (
            f"has focal lengths {lens.focal_px}, a principal point {centre}, a size {lens_size} and a distortion "
            f"{lens.distortion}: all must be finite and lengths positive; correct them, or drop the entry"
        )
    if bool(invalid_poses(camera_to_world[None].to(torch.float32))):
        return "has a pose that holds no rotation, or is not finite; drop the entry or find its pose again"
    if not _fits(size, lens_size):
        return (
            f"is {size[0]}x{size[1]} but its lens is for {lens_size[0]:g}x{lens_size[1]:g}; "
            "scale the intrinsics, or remove the EXIF orientation where it turned the picture"
        )
    return ""


def _fits(size: tuple[int, int], lens_size: tuple[float, float]) -> bool:
    """Whether a picture has the proportions that a lens is for."""
    if not 0 < min(lens_size) < float("inf"):
        return False
    return abs(lens_size[0] * size[1] / (lens_size[1] * size[0]) - 1) <= _ASPECT_TOLERANCE


def _rows(pose: Float[Tensor, "3 4"]) -> Pose:
    first, second, third = ((a, b, c, d) for a, b, c, d in pose.tolist())
    return first, second, third


def captures_of(
    file: Path,
    entries: Iterable[Photo | LeftOut],
    *,
    root: Path,
    kind: str,
    convention: str,
    coordinates: Coordinates,
    contributors: Literal["one", "folders", "photos"] = "one",
) -> CaptureSet:
    """Gather what a format's `file` lists. contributors: who took the photos: one UE, one a folder, or one a photo.

    Raises CaptureError when no photo is left, or a photo is listed twice.
    """
    listed = list(entries)
    photos = sorted((entry for entry in listed if isinstance(entry, Photo)), key=lambda photo: photo.file)
    left_out = tuple(entry for entry in listed if isinstance(entry, LeftOut))
    for photo, following in itertools.pairwise(photos):
        if photo.file == following.file:
            raise CaptureError(f"{file}: {photo.file} is named by two frames; keep one of them")
    if not photos:
        first = f"; the first: {left_out[0].problem}" if left_out else "; list photos with their poses"
        raise CaptureError(f"{file}: none of the {len(listed)} listed photos can be used{first}")
    if left_out:
        logger.warning(
            "%s: %d of %d listed photos are absent or cannot be used (the first: %s); the other %d are used",
            file,
            len(left_out),
            len(listed),
            left_out[0].problem,
            len(photos),
        )
    name = root.resolve().name or "scene"
    return CaptureSet(
        root=root,
        name=name,
        licence="unknown",
        origin_wgs84=None,
        captures=_grouped(photos, name=name, contributors=contributors),
        coordinates=coordinates,
        source=Source(kind=kind, convention=convention, left_out=left_out),
    )


def _grouped(photos: list[Photo], *, name: str, contributors: str) -> tuple[Capture, ...]:
    folders = [str(PurePosixPath(photo.file).parent) for photo in photos]
    shared = os.path.commonpath(folders)
    groups: dict[str, list[Photo]] = {}
    for photo, folder in zip(photos, folders, strict=True):
        within = str(PurePosixPath(folder).relative_to(shared)) if folder != shared else name
        groups.setdefault({"one": name, "folders": within, "photos": photo.file}[contributors], []).append(photo)
    ues = pseudonyms(groups)
    return tuple(capture_of(ues[owner], group) for owner, group in groups.items())


def capture_of(ue: str, photos: Iterable[Photo], *, device: str = "unknown") -> Capture:
    """One UE's photos, for the reader's own use and with nothing known of their licence."""
    return Capture(ue=ue, device=device, consent=OWN_USE, licence="unknown", photos=tuple(photos))


def pseudonyms(names: Iterable[str]) -> dict[str, str]:
    """For each name (of a folder, in any script) a pseudonym of plain letters that no other has."""
    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-_.")[:56] or "ue"
        ue, count = plain, 1
        while ue in taken:
            count += 1
            ue = f"{plain}-{count}"
        taken.add(ue)
        given[name] = ue
    return given
