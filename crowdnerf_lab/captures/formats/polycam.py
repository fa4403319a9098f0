"""Polycam's raw export: keyframes/ with a JSON file and a photo each; the corrected ones where there are any.

t_ij are the rows of camera-to-world, OpenGL axes, metres, y up.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from crowdnerf_lab.captures.axes import opengl_to_opencv, y_up_to_z_up
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.lens import Lens
from crowdnerf_lab.captures.formats.pictures import Pictures, visible
from crowdnerf_lab.captures.formats.records import Record, read_record

LOOKED_FOR = "keyframes/cameras (Polycam)"
CONVENTION = "camera-to-world t_ij, OpenGL axes, metres, y up (turned to z up)"
_PAIRS = (("corrected_cameras", "corrected_images"), ("cameras", "images"))
Length = Annotated[float, Field(gt=0)]


class _Keyframe(Record):
    fx: Length
    fy: Length
    cx: float
    cy: float
    width: Length
    height: Length
    timestamp: float | None = None
    t_00: float
    t_01: float
    t_02: float
    t_03: float
    t_10: float
    t_11: float
    t_12: float
    t_13: float
    t_20: float
    t_21: float
    t_22: float
    t_23: float

    @property
    def pose(self) -> torch.Tensor:
        rows = [[getattr(self, f"t_{row}{column}") for column in range(4)] for row in range(3)]
        return torch.tensor(rows, dtype=torch.float64)


def recognises(path: Path) -> bool:
    """The export's folder, or keyframes/ itself."""
    return _keyframes(path) is not None


def read(path: Path) -> CaptureSet:
    """The keyframes' photos with their cameras. Raises CaptureError when none can be used."""
    places = _keyframes(path)
    if places is None:
        raise CaptureError(f"{path} holds no keyframes/cameras with keyframes/images; export raw data from Polycam")
    cameras, images = places
    return captures_of(
        cameras,
        list(_entries(cameras, images.relative_to(path).as_posix(), Pictures(path))),
        root=path,
        kind=f"Polycam ({cameras.name})",
        convention=CONVENTION,
        coordinates="metric",
    )


def _keyframes(path: Path) -> tuple[Path, Path] | None:
    """The folders of cameras and of images."""
    for folder in (path / "keyframes", path):
        for cameras, images in _PAIRS:
            if (folder / images).is_dir() and (folder / cameras).is_dir() and any((folder / cameras).glob("*.json")):
                return folder / cameras, folder / images
    return None


def _entries(cameras: Path, images: str, pictures: Pictures) -> Iterator[Photo | LeftOut]:
    start: float | None = None
    for file in visible(cameras):
        if file.suffix.lower() != ".json":
            continue
        try:
            keyframe = read_record(file, _Keyframe, named_by="file")
        except CaptureError as error:
            yield LeftOut(f"{cameras.name}/{file.name}", str(error))
            continue
        picture = pictures.find(f"{images}/{file.stem}")
        if isinstance(picture, LeftOut):
            yield picture
            continue
        # Polycam counts microseconds since the phone started.
        time_s = (keyframe.timestamp or 0.0) * 1e-6
        start = time_s if start is None else start
        lens = Lens((keyframe.fx, keyframe.fy), (keyframe.cx, keyframe.cy), (keyframe.width, keyframe.height))
        pose = y_up_to_z_up(opengl_to_opencv(keyframe.pose))
        yield calibrated_photo(picture, pose, lens, file=file, time_s=time_s - start)
