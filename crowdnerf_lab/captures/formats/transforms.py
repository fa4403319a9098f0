"""transforms.json (also transforms_{train,val,test}.json) of nerfstudio, instant-ngp, Blender and NeRFCapture.

These store camera-to-world with OpenGL axes (x right, y up, z backward); inside the package they are OpenCV's (x right,
y down, z forward). Worlds are kept as they are: their unit and their upward axis are the file's. Depth maps, masks,
applied_transform and instant-ngp's aabb_scale, scale and offset are not read.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from crowdnerf_lab.cameras import focal_from_angle
from crowdnerf_lab.captures.axes import opengl_to_opencv
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import CaptureError, read_document
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.lens import Lens
from crowdnerf_lab.captures.formats.pictures import Pictures
from crowdnerf_lab.captures.formats.records import Record, read_record, record_of

TRANSFORMS = "transforms.json"
LOOKED_FOR = "transforms.json nor transforms_train.json (nerfstudio, instant-ngp, Blender)"
CONVENTION = "camera-to-world, OpenGL axes (x right, y up, z backward), world as in the file"
Share = Literal["train", "val", "test"]
SHARES: tuple[Share, ...] = ("train", "val", "test")
_PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE")

Angle = Annotated[float, Field(gt=0, lt=math.pi)]
Length = Annotated[float, Field(gt=0)]
Size = Annotated[float, Field(ge=1)]
Row = tuple[float, float, float, float]


class _Lens(Record):
    """Intrinsics in pixels and radians, for the whole file or for one frame. w and h: the size they refer to."""

    camera_model: str | None = None
    camera_angle_x: Angle | None = None
    camera_angle_y: Angle | None = None
    fl_x: Length | None = None
    fl_y: Length | None = None
    cx: float | None = None
    cy: float | None = None
    w: Size | None = None
    h: Size | None = None
    k1: float | None = None
    k2: float | None = None
    k3: float | None = None
    k4: float | None = None
    p1: float | None = None
    p2: float | None = None
    is_fisheye: bool | None = None


class _Frame(_Lens):
    file_path: str
    transform_matrix: Annotated[tuple[Row, ...], Field(min_length=3, max_length=4)]


class _Transforms(_Lens):
    frames: tuple[Any, ...]
    train_filenames: tuple[str, ...] | None = None
    val_filenames: tuple[str, ...] | None = None
    test_filenames: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Part:
    """A file and the part of the scene that it lists; None where the file itself says, or nobody."""

    share: Share | None
    file: Path


_FOCAL_FIELDS = {"camera_angle_x", "camera_angle_y", "fl_x", "fl_y"}
_LENS_FIELDS = set(_Lens.model_fields)


def recognises(path: Path) -> bool:
    """A folder with such a file, or a JSON file that lists frames."""
    if path.is_dir():
        return bool(_files_in(path))
    return path.suffix.lower() == ".json" and (path.name.lower().startswith("transforms") or _lists_frames(path))


def _lists_frames(path: Path) -> bool:
    """Whether a JSON file of another name holds what a transforms.json does."""
    try:
        frames = read_document(path)[1].get("frames")
    except CaptureError:
        return False
    return isinstance(frames, list) and any(isinstance(frame, dict) and "file_path" in frame for frame in frames)


def read(path: Path) -> CaptureSet:
    """Photos with the cameras that the file gives them, sorted by name, and the parts that it splits them into.

    Frames whose photo is absent or damaged, or whose pose or lens cannot be used, are left out and reported. Raises
    CaptureError for a broken file, a name that leaves the folder or is given twice, and when no photo is left.
    """
    files = _files_in(path) if path.is_dir() else [_Part(None, path)]
    root = path if path.is_dir() else path.parent
    pictures = Pictures(root)
    return captures_of(
        path if len(files) > 1 else files[0].file,
        [entry for part in files for entry in _entries(part.file, pictures, share=part.share)],
        root=root,
        kind="transforms.json of nerfstudio, instant-ngp or Blender",
        convention=CONVENTION,
        coordinates="arbitrary",
    )


def _files_in(folder: Path) -> list[_Part]:
    """transforms.json, else Blender's three, else one whose name begins so, else one that holds the same."""
    names = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".json"}
    if TRANSFORMS in names:
        return [_Part(None, names[TRANSFORMS])]
    parts = [_Part(share, names[f"transforms_{share}.json"]) for share in SHARES if f"transforms_{share}.json" in names]
    others = [_Part(None, path) for name, path in names.items() if name.startswith("transforms")]
    return parts or others[:1] or [_Part(None, path) for path in names.values() if _lists_frames(path)][:1]


def _entries(path: Path, pictures: Pictures, *, share: Share | None) -> Iterator[Photo | LeftOut]:
    """The frames of one file. share: which part they belong to, where the file itself does not say."""
    transforms = read_record(path, _Transforms, named_by="file_path")
    parts = (transforms.train_filenames, transforms.val_filenames, transforms.test_filenames)
    share_of: dict[str, Share | None] = {
        _plain(name): part for part, names in zip(SHARES, parts, strict=True) for name in names or ()
    }
    for index, entry in enumerate(transforms.frames):
        try:
            frame = record_of(path, entry, _Frame, named_by="file_path")
        except CaptureError as error:
            yield LeftOut(f"frames[{index}]", str(error))
            continue
        yield _photo(path, frame, transforms, pictures=pictures, share=share_of.get(_plain(frame.file_path), share))


def _photo(
    path: Path, frame: _Frame, transforms: _Transforms, *, pictures: Pictures, share: Share | None
) -> Photo | LeftOut:
    try:
        picture = pictures.find(frame.file_path)
    except CaptureError as error:
        raise CaptureError(f"{path}: {error}") from None
    if isinstance(picture, LeftOut):
        return picture
    lens = _lens(frame, transforms)
    size = (round(lens.w or picture.stored[0] * picture.shrunk), round(lens.h or picture.stored[1] * picture.shrunk))
    try:
        intrinsics = _intrinsics(lens, size)
    except CaptureError as error:
        return LeftOut(picture.file, f"{path}: {_plain(frame.file_path)} {error}")
    pose = opengl_to_opencv(torch.tensor(frame.transform_matrix[:3], dtype=torch.float64))
    return calibrated_photo(picture, pose, intrinsics, file=path, split=share)


def _lens(frame: _Frame, transforms: _Transforms) -> _Lens:
    """A frame's own intrinsics, else the file's; a frame's focal length or angle replaces both of the file's."""
    own = frame.model_dump(include=_LENS_FIELDS, exclude_none=True)
    shared = transforms.model_dump(include=_LENS_FIELDS - (_FOCAL_FIELDS if _FOCAL_FIELDS & own.keys() else set()))
    return _Lens(**{**shared, **own})


def _intrinsics(lens: _Lens, size: tuple[int, int]) -> Lens:
    """Intrinsics for pictures of that size. Focal lengths: fl_x and fl_y, else the angles of view; square pixels where
    only x is known."""
    if (lens.camera_model or "PINHOLE").upper() not in _PINHOLE_MODELS or lens.is_fisheye or lens.k3 or lens.k4:
        raise CaptureError(f"has a {lens.camera_model or 'fisheye'} lens; undistort the photos to a pinhole")
    if lens.fl_x is not None:
        focal = (lens.fl_x, lens.fl_y or lens.fl_x)
    elif lens.camera_angle_x is not None:
        focal_x = focal_from_angle(lens.camera_angle_x, size[0])
        angle_y = lens.camera_angle_y
        focal = (focal_x, focal_x if angle_y is None else focal_from_angle(angle_y, size[1]))
    else:
        raise CaptureError("has no focal length; add fl_x (pixels) or camera_angle_x (radians)")
    return Lens(
        focal_px=focal,
        centre_px=(size[0] / 2 if lens.cx is None else lens.cx, size[1] / 2 if lens.cy is None else lens.cy),
        size=size,
        distortion=(lens.k1 or 0.0, lens.k2 or 0.0, lens.p1 or 0.0, lens.p2 or 0.0),
    )


def _plain(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))
