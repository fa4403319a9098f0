"""Photos that come with poses: transforms.json as written by nerfstudio, instant-ngp and Blender, and back.

These store camera-to-world with OpenGL axes (x right, y up, z backward); inside the package they are OpenCV's (x right,
y down, z forward). Worlds are kept as they are: their unit and their upward axis are the file's. Depth maps, masks and
instant-ngp's aabb_scale, scale and offset are not read.
"""

import itertools
import logging
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, concatenated, focal_from_angle, invalid_poses
from crowdnerf_lab.captures.documents import CaptureError, FileName, explained, read_document
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.silhouettes import bounds_of_silhouettes
from crowdnerf_lab.files import FileError, inside, write_atomically, write_json
from crowdnerf_lab.scene import Bounds, PosedScene, bounds_of, check_trainable

logger = logging.getLogger(__name__)

TRANSFORMS = "transforms.json"
SHARES = ("train", "val", "test")
_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
"""Blender's scenes name their pictures without the extension."""
_PINHOLE_MODELS = (None, "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
_ASPECT_TOLERANCE = 0.02
"""How far a picture's proportions may be from the file's: halving an odd size rounds by a pixel."""

Angle = Annotated[float, Field(gt=0, lt=math.pi)]
Length = Annotated[float, Field(gt=0)]
Size = Annotated[float, Field(ge=1)]
Row = tuple[float, float, float, float]


@dataclass(frozen=True)
class MissingFiles:
    """Frames of a transforms.json that gave no photo. listed: how many it names; absent: names without a file;
    unreadable: for each damaged picture, what is wrong with it."""

    listed: int
    absent: tuple[str, ...]
    unreadable: tuple[str, ...]


class _Lens(BaseModel):
    """Intrinsics in pixels and radians, for the whole file or for one frame. w and h: the size they refer to."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

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
    file_path: FileName
    transform_matrix: Annotated[tuple[Row, ...], Field(min_length=3, max_length=4)]


class _Transforms(_Lens):
    frames: tuple[_Frame, ...]
    train_filenames: tuple[str, ...] | None = None
    val_filenames: tuple[str, ...] | None = None
    test_filenames: tuple[str, ...] | None = None


_FOCAL_FIELDS = {"camera_angle_x", "camera_angle_y", "fl_x", "fl_y"}
_LENS_FIELDS = set(_Lens.model_fields)


@dataclass(frozen=True)
class _Listed:
    """A frame, the lens that holds for it, its part (train, val, test, or None) and the file that lists it."""

    frame: _Frame
    lens: _Lens
    share: str | None
    file: Path

    @property
    def name(self) -> str:
        return str(PurePosixPath(self.frame.file_path))


def opengl_to_opencv(camera_to_world: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """Camera-to-world with OpenGL axes to OpenCV axes: the y and z columns change sign, the position stays."""
    return camera_to_world * camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0])


def opencv_to_opengl(camera_to_world: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """Inverse of `opengl_to_opencv`."""
    return camera_to_world * camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0])


def read_transforms(path: Path | str, *, held_out_every: int = 8) -> tuple[PosedScene, MissingFiles]:
    """A scene from transforms.json, or from a folder with one, or with Blender's transforms_{train,val,test}.json.

    Photos are sorted by name; transparent ones are laid over white, and where all training photos are cut out, the
    bounds are the box of the object that they show. Held out are the file's own test photos (its validation photos
    where it has no test), else every `held_out_every`-th, from the first on (0: none). Photos that are absent or
    damaged are left out and reported. Raises CaptureError for a broken file, a pose that is none, a name given twice,
    or a lens that is no pinhole; SceneError for too few photos.
    """
    path = Path(path)
    file = path / TRANSFORMS if path.is_dir() else path
    if file.is_file():
        return _scene_of(file.parent, _listed(file), held_out_every=held_out_every)
    splits = [(share, path / f"transforms_{share}.json") for share in SHARES]
    if not splits[0][1].is_file():
        raise CaptureError(f"{path} holds neither {TRANSFORMS} nor {splits[0][1].name}; give the file or its folder")
    listed = [photo for share, file in splits if file.is_file() for photo in _listed(file, share=share)]
    return _scene_of(path, listed, held_out_every=held_out_every)


def write_transforms(scene: PosedScene, folder: Path | str) -> Path:
    """Write a scene as nerfstudio's transforms.json beside its photos as PNG. Returns the path of the file."""
    folder = Path(folder)
    files = [f"images/{index:05d}.png" for index in range(len(scene))]
    for file, image in zip(files, scene.images, strict=True):
        picture = Image.fromarray(image.numpy())
        write_atomically(folder / file, lambda partial, picture=picture: picture.save(partial, "PNG"))
    document: dict[str, Any] = {
        "camera_model": "OPENCV",
        "train_filenames": [files[index] for index in scene.train.tolist()],
        "test_filenames": [files[index] for index in scene.held_out.tolist()],
        "frames": [_frame_of(scene.cameras, index, file) for index, file in enumerate(files)],
    }
    return write_json(folder / TRANSFORMS, document)


def _frame_of(cameras: Cameras, index: int, file: str) -> dict[str, Any]:
    pose = opencv_to_opengl(cameras.camera_to_world[index])
    (fl_x, fl_y), (cx, cy) = cameras.focal[index].tolist(), cameras.centre[index].tolist()
    distortion = dict(zip(("k1", "k2", "p1", "p2"), cameras.distortion[index].tolist(), strict=True))
    size = {"w": int(cameras.width[index]), "h": int(cameras.height[index])}
    lens = {"fl_x": fl_x, "fl_y": fl_y, "cx": cx, "cy": cy, **size, **distortion}
    return {"file_path": file, "transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]], **lens}


def _listed(path: Path, *, share: str | None = None) -> list[_Listed]:
    """The frames of one file. share: which part they belong to, where the file itself does not say."""
    text, document = read_document(path)
    try:
        transforms = _Transforms.model_validate_json(text)
    except ValidationError as error:
        raise explained(path, document, error=error, named_by="file_path") from None
    parts = (transforms.train_filenames, transforms.val_filenames, transforms.test_filenames)
    share_of = {name: part for part, names in zip(SHARES, parts, strict=True) for name in names or ()}
    return [
        _Listed(frame, lens=_lens(frame, transforms), share=share_of.get(frame.file_path, share), file=path)
        for frame in transforms.frames
    ]


def _lens(frame: _Frame, transforms: _Transforms) -> _Lens:
    """A frame's own intrinsics, else the file's; a frame's focal length or angle replaces both of the file's."""
    own = frame.model_dump(include=_LENS_FIELDS, exclude_none=True)
    shared = transforms.model_dump(include=_LENS_FIELDS - (_FOCAL_FIELDS if _FOCAL_FIELDS & own.keys() else set()))
    return _Lens(**{**shared, **own})


def _scene_of(root: Path, listed: list[_Listed], *, held_out_every: int) -> tuple[PosedScene, MissingFiles]:
    listed = sorted(listed, key=lambda photo: photo.name)
    for photo, following in itertools.pairwise(listed):
        if photo.name == following.name:
            raise CaptureError(f"{photo.file}: {photo.name} is named by two frames; keep one of them")
    images, silhouettes, found, absent, unreadable = [], [], [], [], []
    for photo in listed:
        file = _picture_of(root, photo)
        if file is None:
            absent.append(photo.name)
            continue
        try:
            images.append(read_photo(file))
            silhouettes.append(_silhouette(file))
            found.append(photo)
        except PhotoError as error:
            unreadable.append(str(error))
    if not found:
        raise CaptureError(f"{root}: none of the {len(listed)} listed photos can be read; put them back")
    cameras = concatenated(
        [
            _camera(photo, width=image.shape[1], height=image.shape[0])
            for photo, image in zip(found, images, strict=True)
        ]
    )
    train, held_out = _split([photo.share for photo in found], held_out_every=held_out_every)
    name = root.resolve().name
    scene = PosedScene(
        name=name,
        image_names=tuple(photo.name for photo in found),
        cameras=cameras,
        images=tuple(images),
        masks=None,
        bounds=_bounds(cameras, [silhouettes[row] for row in train], train),
        captures=(name,),
        capture_of_image=torch.zeros(len(found), dtype=torch.int64),
        time_of_image=torch.zeros(len(found)),
        train=torch.tensor(train, dtype=torch.int64),
        held_out=torch.tensor(held_out, dtype=torch.int64),
        origin_wgs84=None,
    )
    check_trainable(scene)
    if len(found) < len(listed):
        logger.warning(
            "%s: %d of %d listed photos are absent and %d damaged; the other %d are used",
            root,
            len(absent),
            len(listed),
            len(unreadable),
            len(found),
        )
    return scene, MissingFiles(listed=len(listed), absent=tuple(absent), unreadable=tuple(unreadable))


def _silhouette(path: Path) -> Bool[Tensor, "h w"] | None:
    """Where a picture shows its object, or None for a picture without transparent pixels."""
    with Image.open(path) as picture:
        if not picture.has_transparency_data:
            return None
        alpha = torch.from_numpy(np.array(ImageOps.exif_transpose(picture).convert("RGBA").getchannel("A")))
    return alpha > 0 if bool((alpha == 0).any()) else None


def _bounds(cameras: Cameras, silhouettes: list[Tensor | None], train: list[int]) -> Bounds:
    """The box of the object where every training photo is cut out, else the box that suits the cameras."""
    cut_out = [silhouette for silhouette in silhouettes if silhouette is not None]
    views = cameras[torch.tensor(train, dtype=torch.int64)]
    if len(cut_out) < max(len(train), 1) or bool(views.distortion.any()):
        return bounds_of(cameras)
    return bounds_of_silhouettes(views, cut_out) or bounds_of(cameras)


def _split(shares: list[str | None], *, held_out_every: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held out: as the file says, else every `held_out_every`-th row held out."""
    rows = range(len(shares))
    if not any(shares):
        held_out = list(rows[::held_out_every]) if held_out_every else []
        return [row for row in rows if row not in held_out], held_out
    trained = "train" if "train" in shares else None
    tests = "test" if "test" in shares else "val"
    return [row for row in rows if shares[row] == trained], [row for row in rows if shares[row] == tests]


def _picture_of(root: Path, photo: _Listed) -> Path | None:
    """The picture a frame names, or None when there is none."""
    try:
        candidates = [inside(root, photo.frame.file_path + suffix) for suffix in _SUFFIXES]
    except FileError as error:
        raise CaptureError(f"{photo.file}: {error}") from None
    return next((path for path in candidates if path.is_file()), None)


def _camera(photo: _Listed, *, width: int, height: int) -> Cameras:
    """The camera of a frame whose picture was found to be width x height; its intrinsics are scaled to that."""
    lens, about = photo.lens, f"{photo.file}: {photo.name}"
    if lens.camera_model not in _PINHOLE_MODELS or lens.is_fisheye or lens.k3 or lens.k4:
        raise CaptureError(f"{about} has a {lens.camera_model or 'fisheye'} lens; undistort the photos to a pinhole")
    pose = opengl_to_opencv(torch.tensor([photo.frame.transform_matrix[:3]], dtype=torch.float64))
    if bool(invalid_poses(pose)):
        raise CaptureError(f"{about}: transform_matrix holds no rotation; drop the frame or find its pose again")
    lens_width, lens_height = round(lens.w or width), round(lens.h or height)
    if abs(lens_width * height / (lens_height * width) - 1) > _ASPECT_TOLERANCE:
        raise CaptureError(
            f"{about} is {width}x{height} but its lens is for {lens_width}x{lens_height}; "
            "scale the intrinsics, or remove the EXIF orientation where it turned the picture"
        )
    centre_x = lens_width / 2 if lens.cx is None else lens.cx
    centre_y = lens_height / 2 if lens.cy is None else lens.cy
    camera = Cameras(
        camera_to_world=pose.to(torch.float32),
        focal=torch.tensor([_focal(lens, lens_width, height=lens_height, about=about)]),
        centre=torch.tensor([[centre_x, centre_y]]),
        width=torch.tensor([lens_width]),
        height=torch.tensor([lens_height]),
        distortion=torch.tensor([[lens.k1 or 0.0, lens.k2 or 0.0, lens.p1 or 0.0, lens.p2 or 0.0]]),
    )
    return camera.resized(width, height)


def _focal(lens: _Lens, width: int, *, height: int, about: str) -> tuple[float, float]:
    """Focal lengths in pixels: fl_x and fl_y, else the angles of view; square pixels where only x is known."""
    if lens.fl_x is not None:
        return lens.fl_x, lens.fl_y or lens.fl_x
    if lens.camera_angle_x is None:
        raise CaptureError(f"{about} has no focal length; add fl_x (pixels) or camera_angle_x (radians)")
    focal_x = focal_from_angle(lens.camera_angle_x, width)
    return focal_x, focal_x if lens.camera_angle_y is None else focal_from_angle(lens.camera_angle_y, height)
