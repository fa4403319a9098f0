"""The ways out: a posed scene as nerfstudio's transforms.json or as a COLMAP model, beside its photos."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.captures.axes import inverse, opencv_to_opengl, quaternion_of
from crowdnerf_lab.files import write_atomically, write_bytes, write_json
from crowdnerf_lab.scene import PosedScene

_MODEL_IDS = {"PINHOLE": 1, "OPENCV": 4}
_GREY = 128


def write_transforms(scene: PosedScene, folder: Path | str) -> Path:
    """Write a scene as nerfstudio's transforms.json beside its photos as PNG. Returns the path of the file."""
    folder = Path(folder)
    files = _write_photos(scene, folder)
    document: dict[str, Any] = {
        "camera_model": "OPENCV",
        "train_filenames": [files[index] for index in scene.train.tolist()],
        "test_filenames": [files[index] for index in scene.held_out.tolist()],
        "frames": [_frame_of(scene.cameras, index, file) for index, file in enumerate(files)],
    }
    return write_json(folder / "transforms.json", document)


def write_colmap(
    scene: PosedScene,
    folder: Path | str,
    *,
    points: Float[Tensor, "m 3"] | None = None,
    colours: UInt8[Tensor, "m 3"] | None = None,
    binary: bool = True,
) -> Path:
    """Write a scene as a COLMAP project: its photos as PNG in images/, the model in sparse/0, which is returned.

    Lenses without distortion become PINHOLE, which splatting tools ask for, others OPENCV. points: scene points in the
    scene's frame, without tracks; colours: their sRGB bytes, grey when absent. binary: else text. COLMAP knows no split
    into training and held-out photos: all of them are written.
    """
    model = Path(folder) / "sparse" / "0"
    files = _write_photos(scene, Path(folder))
    lens_of_image = [_lens_of(scene.cameras, index) for index in range(len(scene))]
    lenses = list(dict.fromkeys(lens_of_image))
    images = [
        _PosedImage(index + 1, _world_to_camera(scene.cameras, index), lenses.index(lens) + 1, Path(file).name)
        for index, (file, lens) in enumerate(zip(files, lens_of_image, strict=True))
    ]
    cloud = _cloud(points, colours)
    encode = _binary if binary else _text
    for name, content in zip(("cameras", "images", "points3D"), encode(lenses, images, cloud), strict=True):
        write_bytes(model / f"{name}.{'bin' if binary else 'txt'}", content)
    return model


def _write_photos(scene: PosedScene, folder: Path) -> list[str]:
    """The photos as PNG; their names relative to the folder."""
    files = [f"images/{index:05d}.png" for index in range(len(scene))]
    for file, image in zip(files, scene.images, strict=True):
        picture = Image.fromarray(image.numpy())
        write_atomically(folder / file, lambda partial, picture=picture: picture.save(partial, "PNG"))
    return files


def _frame_of(cameras: Cameras, index: int, file: str) -> dict[str, Any]:
    pose = opencv_to_opengl(cameras.camera_to_world[index])
    (fl_x, fl_y), (cx, cy) = cameras.focal[index].tolist(), cameras.centre[index].tolist()
    distortion = dict(zip(("k1", "k2", "p1", "p2"), cameras.distortion[index].tolist(), strict=True))
    size = {"w": int(cameras.width[index]), "h": int(cameras.height[index])}
    lens = {"fl_x": fl_x, "fl_y": fl_y, "cx": cx, "cy": cy, **size, **distortion}
    return {"file_path": file, "transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]], **lens}


@dataclass(frozen=True)
class _Lens:
    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class _PosedImage:
    """pose: world-to-camera as quaternion w, x, y, z and translation."""

    image_id: int
    pose: tuple[float, ...]
    camera_id: int
    name: str


@dataclass(frozen=True)
class _CloudPoint:
    position: tuple[float, float, float]
    colour: tuple[int, int, int]


def _lens_of(cameras: Cameras, index: int) -> _Lens:
    ideal = not bool(cameras.distortion[index].any())
    params = [*cameras.focal[index].tolist(), *cameras.centre[index].tolist()]
    return _Lens(
        model="PINHOLE" if ideal else "OPENCV",
        width=int(cameras.width[index]),
        height=int(cameras.height[index]),
        params=tuple(params if ideal else [*params, *cameras.distortion[index].tolist()]),
    )


def _world_to_camera(cameras: Cameras, index: int) -> tuple[float, ...]:
    pose = inverse(cameras.camera_to_world[index].to(torch.float64))
    x, y, z, w = quaternion_of(pose[:, :3])
    return (w, x, y, z, *pose[:, 3].tolist())


def _cloud(points: Tensor | None, colours: Tensor | None) -> list[_CloudPoint]:
    if points is None:
        return []
    shades = torch.full_like(points, _GREY, dtype=torch.uint8) if colours is None else colours
    return [
        _CloudPoint((x, y, z), (red, green, blue))
        for (x, y, z), (red, green, blue) in zip(points.tolist(), shades.tolist(), strict=True)
    ]


def _binary(lenses: list[_Lens], images: list[_PosedImage], cloud: list[_CloudPoint]) -> tuple[bytes, bytes, bytes]:
    """cameras, images and points3D as COLMAP's reader takes them: little endian, counts first."""
    cameras = b"".join(
        struct.pack(f"<iiQQ{len(lens.params)}d", i, _MODEL_IDS[lens.model], lens.width, lens.height, *lens.params)
        for i, lens in enumerate(lenses, start=1)
    )
    posed = b"".join(
        struct.pack("<i7di", image.image_id, *image.pose, image.camera_id) + image.name.encode() + b"\0" + bytes(8)
        for image in images
    )
    # An error of 0 and an empty track: no picture is said to show the point.
    points = b"".join(
        struct.pack("<Q3d3BdQ", i, *point.position, *point.colour, 0.0, 0) for i, point in enumerate(cloud, start=1)
    )
    counted = ((lenses, cameras), (images, posed), (cloud, points))
    first, second, third = (struct.pack("<Q", len(rows)) + content for rows, content in counted)
    return first, second, third


def _text(lenses: list[_Lens], images: list[_PosedImage], cloud: list[_CloudPoint]) -> tuple[bytes, bytes, bytes]:
    """The same as lines; every image is followed by an empty line for its points."""
    cameras = [
        f"{i} {lens.model} {lens.width} {lens.height} {_words(lens.params)}" for i, lens in enumerate(lenses, start=1)
    ]
    posed = [f"{image.image_id} {_words(image.pose)} {image.camera_id} {image.name}\n" for image in images]
    points = [f"{i} {_words(point.position)} {_words(point.colour)} 0" for i, point in enumerate(cloud, start=1)]
    headers = (
        "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]",
        "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME, then a line of POINTS2D[] as (X, Y, POINT3D_ID)",
        "# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)",
    )
    first, second, third = (
        "\n".join([header, *lines, ""]).encode()
        for header, lines in zip(headers, (cameras, posed, points), strict=True)
    )
    return first, second, third


def _words(numbers: tuple[float, ...]) -> str:
    return " ".join(map(repr, numbers))
