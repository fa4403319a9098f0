"""Record3D's export: metadata.json beside rgb/0.jpg, 1.jpg and so on; an .r3d file is a zip of `metadata` and rgbd/.

poses are camera-to-world: a quaternion x, y, z, w and a position in metres, OpenGL axes, y up, one a photo. K is the
matrix of intrinsics column by column; perFrameIntrinsicCoeffs, where written, are fx, fy, cx, cy of each photo.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from crowdnerf_lab.captures.axes import opengl_to_opencv, pose_of_quaternion, y_up_to_z_up
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import CaptureError, read_document
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.lens import Lens
from crowdnerf_lab.captures.formats.pictures import Pictures, is_photo, visible
from crowdnerf_lab.captures.formats.records import Record, read_record
from crowdnerf_lab.captures.formats.scanner_app import lens_of_nine

LOOKED_FOR = "metadata.json with rgb/ (Record3D)"
CONVENTION = "camera-to-world quaternions x y z w, OpenGL axes, metres, y up (turned to z up)"
_NAMES = ("metadata.json", "metadata")
_IMAGE_FOLDERS = ("rgb", "rgbd", "images", "color")
Length = Annotated[float, Field(gt=0)]


class _Metadata(Record):
    K: Annotated[tuple[float, ...], Field(min_length=9, max_length=9)]
    w: Length
    h: Length
    fps: Length = 60.0
    poses: tuple[Any, ...]
    perFrameIntrinsicCoeffs: tuple[Any, ...] | None = None  # noqa: N815
    frameTimestamps: tuple[float, ...] | None = None  # noqa: N815


def recognises(path: Path) -> bool:
    """A folder with such metadata, at its top or in EXR_RGBD/, or the metadata file."""
    file = _file(path)
    if file is None:
        return False
    try:
        document = read_document(file)[1]
    except CaptureError:
        return file.name == _NAMES[0] and any((file.parent / folder).is_dir() for folder in _IMAGE_FOLDERS[:2])
    return "poses" in document and "K" in document


def read(path: Path) -> CaptureSet:
    """The photos with their cameras. Raises CaptureError for broken metadata, and when no photo can be used."""
    file = _file(path)
    if file is None:
        raise CaptureError(f"{path} holds no metadata.json; export an EXR + RGB sequence, or share the .r3d file")
    metadata = read_record(file, _Metadata, named_by="name")
    return captures_of(
        file,
        list(_entries(file, metadata)),
        root=file.parent,
        kind="Record3D",
        convention=CONVENTION,
        coordinates="metric",
    )


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.name in _NAMES else None
    places = (place / name for place in (path, path / "EXR_RGBD") for name in _NAMES)
    return next((file for file in places if file.is_file()), None)


def _entries(file: Path, metadata: _Metadata) -> Iterator[Photo | LeftOut]:
    pictures, numbered = Pictures(file.parent), _numbered(file.parent)
    times = metadata.frameTimestamps or ()
    start = min(times, default=0.0)
    for index, numbers in enumerate(metadata.poses):
        if index not in numbered:
            yield LeftOut(f"rgb/{index}", f"{file}: pose {index} has no photo in rgb/; put {index}.jpg back")
            continue
        picture = pictures.opened(numbered[index])
        if isinstance(picture, LeftOut):
            yield picture
            continue
        try:
            x, y, z, w, *position = (float(number) for number in numbers)
            pose = y_up_to_z_up(opengl_to_opencv(pose_of_quaternion((x, y, z, w), position)))
            lens = _lens(metadata, index)
        except (TypeError, ValueError, OverflowError) as error:
            yield LeftOut(picture.file, f"{file}: poses[{index}] ({picture.file}): {error}; drop the entry")
            continue
        time_s = times[index] - start if index < len(times) else index / metadata.fps
        yield calibrated_photo(picture, pose, lens, file=file, time_s=time_s)


def _lens(metadata: _Metadata, index: int) -> Lens:
    size = (metadata.w, metadata.h)
    own = metadata.perFrameIntrinsicCoeffs
    if own is None or len(own) != len(metadata.poses):
        return lens_of_nine(metadata.K, size=size)
    fx, fy, cx, cy = (float(number) for number in own[index])
    return Lens((fx, fy), (cx, cy), size)


def _numbered(root: Path) -> dict[int, str]:
    """The photos by their number."""
    for folder in _IMAGE_FOLDERS:
        if (root / folder).is_dir():
            photos = [path for path in visible(root / folder) if path.stem.isdecimal() and is_photo(path)]
            if photos:
                return {int(path.stem): f"{folder}/{path.name}" for path in photos}
    return {}
