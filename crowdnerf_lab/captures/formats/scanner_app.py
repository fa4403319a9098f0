"""3D Scanner App's "all data" export: frame_00000.json beside frame_00000.jpg, as ARKit gave them.

cameraPoseARFrame is camera-to-world, 16 numbers row by row, OpenGL axes, metres, y up; intrinsics are 9 numbers row by
row, in pixels of the photo.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from crowdnerf_lab.captures.axes import opengl_to_opencv, pose_of_sixteen, y_up_to_z_up
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import CaptureError, read_document
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.lens import Lens
from crowdnerf_lab.captures.formats.pictures import Pictures, visible
from crowdnerf_lab.captures.formats.records import Record, read_record

LOOKED_FOR = "frame_*.json with cameraPoseARFrame (ARKit, 3D Scanner App)"
CONVENTION = "camera-to-world, OpenGL axes, metres, y up (turned to z up)"
_FILES_TRIED = 3


class _Frame(Record):
    cameraPoseARFrame: Annotated[tuple[float, ...], Field(min_length=16, max_length=16)]  # noqa: N815
    intrinsics: Annotated[tuple[float, ...], Field(min_length=9, max_length=9)]
    time: float = 0.0


def recognises(path: Path) -> bool:
    """A folder whose JSON files tell ARKit's camera poses, or one such file."""
    for file in _files(path)[:_FILES_TRIED]:
        try:
            if "cameraPoseARFrame" in read_document(file)[1]:
                return True
        except CaptureError:
            continue
    return False


def read(path: Path) -> CaptureSet:
    """The frames that have a photo, with their cameras. Raises CaptureError when none can be used."""
    root = path if path.is_dir() else path.parent
    return captures_of(
        root,
        list(_entries(root, Pictures(root))),
        root=root,
        kind="ARKit frames of 3D Scanner App",
        convention=CONVENTION,
        coordinates="metric",
    )


def lens_of_nine(values: tuple[float, ...], *, size: tuple[float, float] | None = None) -> Lens:
    """The lens of a 3x3 matrix whose 9 numbers go row by row, or column by column: its last row is 0, 0, 1."""
    transposed = any(values[6:8]) and not any((values[2], values[5]))
    centre = (values[6], values[7]) if transposed else (values[2], values[5])
    return Lens((values[0], values[4]), centre, size)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    return [file for file in visible(path) if file.suffix.lower() == ".json" and file.stem.lower().startswith("frame")]


def _entries(root: Path, pictures: Pictures) -> Iterator[Photo | LeftOut]:
    start: float | None = None
    for file in _files(root):
        try:
            frame = read_record(file, _Frame, named_by="file")
            pose = y_up_to_z_up(opengl_to_opencv(pose_of_sixteen(frame.cameraPoseARFrame)))
        except ValueError as error:
            yield LeftOut(file.name, str(error) if isinstance(error, CaptureError) else f"{file}: {error}")
            continue
        picture = pictures.find(file.stem)
        if isinstance(picture, LeftOut):
            yield picture
            continue
        start = frame.time if start is None else start
        lens = lens_of_nine(frame.intrinsics)
        yield calibrated_photo(picture, pose, lens, file=file, time_s=frame.time - start)
