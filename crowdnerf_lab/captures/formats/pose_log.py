"""Logs of a phone's own tracking (ARKit, ARCore): a table or list of poses beside the photos they belong to.

Taken for such a log is a table (.csv, .tsv, .txt) with a header, or a list of records (.json, .jsonl), that holds a
position, a quaternion or a matrix, under any of the names that pose_records knows. Poses are camera-to-world, OpenGL
axes, metres, y up: what ARCore calls Camera.getPose (not the display-oriented one) and ARKit ARCamera.transform.
Quaternions are x, y, z, w by their names. Intrinsics stand in every record, at the document's top, or in a camera file
beside (intrinsics, camera_intrinsics, calibration, camera or camera_matrix; .json, .csv or .txt).
"""

from collections.abc import Iterator
from pathlib import Path

from crowdnerf_lab.captures.axes import opengl_to_opencv, y_up_to_z_up
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.pictures import Picture, Pictures, is_photo, visible
from crowdnerf_lab.captures.formats.pose_records import (
    SUFFIXES,
    Fields,
    image_of,
    lens_beside,
    lens_in,
    pose_in,
    records_in,
    time_in,
)

LOOKED_FOR = "a pose log (.csv or .json with positions and quaternions, as ARKit and ARCore apps write)"
CONVENTION = "camera-to-world, OpenGL axes, metres, y up (turned to z up)"
_IMAGE_FOLDERS = ("", "images", "rgb", "frames", "image", "photos", "color")
_RECORDS_TRIED = 5


def recognises(path: Path) -> bool:
    """A log of poses, or a folder with one."""
    return _log(path) is not None


def read(path: Path) -> CaptureSet:
    """The photos that the log has poses for. Raises CaptureError when none can be used."""
    file = _log(path)
    if file is None:
        raise CaptureError(f"{path} holds no log of poses; it needs tx, ty, tz and qx, qy, qz, qw in every record")
    return captures_of(
        file,
        list(_entries(file)),
        root=file.parent,
        kind="pose log of ARKit or ARCore",
        convention=CONVENTION,
        coordinates="metric",
    )


def _log(path: Path) -> Path | None:
    """The first file whose records hold poses."""
    files = [path] if path.is_file() else visible(path)
    for file in files:
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        try:
            for _, record in zip(range(_RECORDS_TRIED), records_in(file), strict=False):
                if pose_in(record) is not None:
                    return file
        except ValueError:
            continue
    return None


def _entries(file: Path) -> Iterator[Photo | LeftOut]:
    pictures, shared = Pictures(file.parent), lens_beside(file.parent)
    photos = _photos_by_time(file.parent)
    start: float | None = None
    for number, record in enumerate(records_in(file), start=1):
        about = f"{file.name}:{number}"
        try:
            pose, lens = pose_in(record), lens_in(record) or shared
            time_s = time_in(record)
        except ValueError as error:
            yield LeftOut(about, f"{file}, record {number}: {error}; correct it, or drop the record")
            continue
        if pose is None:
            yield LeftOut(about, f"{file}, record {number} holds no position and rotation; drop the record")
            continue
        picture = _picture(pictures, record, photos)
        if isinstance(picture, LeftOut):
            yield LeftOut(picture.file or about, f"{file}, record {number}: {picture.problem}")
            continue
        if lens is None:
            yield LeftOut(picture.file, f"{file}, record {number}: no fx, fy, cx, cy; add them, or an intrinsics.json")
            continue
        start = time_s if start is None else start
        camera_to_world = y_up_to_z_up(opengl_to_opencv(pose))
        yield calibrated_photo(picture, camera_to_world, lens, file=file, time_s=(time_s or 0.0) - (start or 0.0))


def _picture(pictures: Pictures, record: Fields, photos: dict[str, str]) -> Picture | LeftOut:
    """The photo a record names, in any of the usual folders; else the one named after its time."""
    name = image_of(record)
    if name is None:
        return LeftOut("", "names no photo; add a column image")
    for folder in _IMAGE_FOLDERS:
        found = pictures.find(f"{folder}/{name}" if folder else name)
        if isinstance(found, Picture):
            return found
    number = name.lstrip("0") or "0"
    if number in photos:
        return pictures.opened(photos[number])
    return LeftOut(name, f"{name} does not exist, nor below {', '.join(_IMAGE_FOLDERS[1:])}; put the photo back")


def _photos_by_time(root: Path) -> dict[str, str]:
    """Photos whose name is a number (a frame's or a time stamp's), by it without leading zeros."""
    found = {}
    for folder in reversed(_IMAGE_FOLDERS):
        for path in visible(root / folder) if (root / folder).is_dir() else ():
            digits = path.stem.rpartition("_")[2]
            if path.is_file() and digits.isdecimal() and is_photo(path):
                found[digits.lstrip("0") or "0"] = f"{folder}/{path.name}" if folder else path.name
    return found
