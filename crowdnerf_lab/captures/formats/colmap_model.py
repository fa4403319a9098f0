"""COLMAP's sparse models, binary and text: cameras and images; points are not needed and skipped.

Images carry world-to-camera, OpenCV axes, as a quaternion w, x, y, z and a translation. Pixel centres lie at +0.5.
See https://colmap.github.io/format.html.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from crowdnerf_lab.captures.bundle import LeftOut
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.lens import Lens

Record = TypeVar("Record")
MODEL_BYTES = 2 << 30
"""Largest file that is read."""
MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    ("SIMPLE_DIVISION", 4),
    ("DIVISION", 5),
    ("SIMPLE_FISHEYE", 3),
    ("FISHEYE", 4),
    ("EUCM", 6),
    ("EQUIRECTANGULAR", 2),
)
"""Camera models in the order of their binary ids, with the number of their parameters."""


@dataclass(frozen=True)
class ModelCamera:
    """A camera as COLMAP describes it; params in the order of its model."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class ModelImage:
    """An image's pose, world-to-camera: quaternion w, x, y, z and translation; and its name below the image folder."""

    image_id: int
    quaternion: tuple[float, float, float, float]
    translation: tuple[float, float, float]
    camera_id: int
    name: str


@dataclass(frozen=True)
class Model:
    """A sparse model without its points. left_out: lines that could not be read."""

    file: Path
    cameras: dict[int, ModelCamera]
    images: tuple[ModelImage, ...]
    left_out: tuple[LeftOut, ...] = ()


def has_model(folder: Path) -> bool:
    """Whether a folder holds cameras and images, both binary or both text."""
    return any(all((folder / f"{part}{end}").is_file() for part in ("cameras", "images")) for end in (".bin", ".txt"))


def has_part(folder: Path) -> bool:
    """Whether a folder holds some file of a model, if only one."""
    return any((folder / f"{part}{end}").is_file() for part in ("cameras", "images") for end in (".bin", ".txt"))


def read_model(folder: Path) -> Model:
    """The model in a folder; the binary one where there are both. Raises CaptureError for a file that is cut short."""
    if all((folder / name).is_file() for name in ("cameras.bin", "images.bin")):
        cameras = dict(_binary(folder / "cameras.bin", _cameras_in))
        return Model(folder / "images.bin", cameras, tuple(_binary(folder / "images.bin", _images_in)))
    if missing := [name for name in ("cameras.txt", "images.txt") if not (folder / name).is_file()]:
        raise CaptureError(f"{folder} holds no {missing[0]} that belongs to its other files; export the model again")
    cameras, cut_cameras = _text_cameras(folder / "cameras.txt")
    images, cut_images = _text_images(folder / "images.txt", cameras)
    return Model(folder / "images.txt", cameras, images, (*cut_cameras, *cut_images))


def lens_of(camera: ModelCamera) -> Lens:
    """The lens of a camera. Raises CaptureError for lenses that radial and tangential terms do not describe."""
    size = (float(camera.width), float(camera.height))
    p = camera.params
    match camera.model:
        case "SIMPLE_PINHOLE":
            return Lens((p[0], p[0]), (p[1], p[2]), size)
        case "PINHOLE":
            return Lens((p[0], p[1]), (p[2], p[3]), size)
        case "SIMPLE_RADIAL":
            return Lens((p[0], p[0]), (p[1], p[2]), size, (p[3], 0.0, 0.0, 0.0))
        case "RADIAL":
            return Lens((p[0], p[0]), (p[1], p[2]), size, (p[3], p[4], 0.0, 0.0))
        case "OPENCV":
            return Lens((p[0], p[1]), (p[2], p[3]), size, (p[4], p[5], p[6], p[7]))
        case "FULL_OPENCV" if not any(p[8:]):
            return Lens((p[0], p[1]), (p[2], p[3]), size, (p[4], p[5], p[6], p[7]))
    raise CaptureError(
        f"has a {camera.model} lens, which is not one of SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV or "
        "FULL_OPENCV with k3 to k6 of 0; undistort the photos (colmap image_undistorter)"
    )


def _binary(path: Path, parse: Callable[[bytes], Iterator[Record]]) -> list[Record]:
    size = path.stat().st_size
    if size > MODEL_BYTES:
        raise CaptureError(f"{path} has {size} bytes, more than {MODEL_BYTES}; split the model")
    try:
        return list(parse(path.read_bytes()))
    except (struct.error, ValueError, IndexError) as error:
        raise CaptureError(f"{path} is cut short or no COLMAP file ({error}); export the model again") from None


def _cameras_in(content: bytes) -> Iterator[tuple[int, ModelCamera]]:
    (count,) = struct.unpack_from("<Q", content)
    offset = 8
    for _ in range(count):
        camera_id, model_id, width, height = struct.unpack_from("<iiQQ", content, offset)
        if not 0 <= model_id < len(MODELS):
            raise ValueError(f"camera {camera_id} is of the unknown model {model_id}")
        name, length = MODELS[model_id]
        params = struct.unpack_from(f"<{length}d", content, offset + 24)
        offset += 24 + 8 * length
        yield camera_id, ModelCamera(name, width, height, params)


def _images_in(content: bytes) -> Iterator[ModelImage]:
    (count,) = struct.unpack_from("<Q", content)
    offset = 8
    for _ in range(count):
        image_id, *pose, camera_id = struct.unpack_from("<i7di", content, offset)
        end = content.index(b"\0", offset + 64)
        name = content[offset + 64 : end].decode("utf-8")
        (points,) = struct.unpack_from("<Q", content, end + 1)
        offset = end + 9 + 24 * points
        if offset > len(content):
            raise ValueError(f"the points of image {name!r} end beyond the file")
        yield ModelImage(image_id, _four(pose[:4]), _three(pose[4:]), camera_id, name)


def _text_cameras(path: Path) -> tuple[dict[int, ModelCamera], list[LeftOut]]:
    cameras, left_out = {}, []
    lengths = dict(MODELS)
    for number, line in _lines(path):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        try:
            params = tuple(map(float, words[4:]))
            if len(params) != lengths.get(words[1], len(params)):
                raise ValueError(f"{words[1]} has {lengths[words[1]]} parameters")
            cameras[int(words[0])] = ModelCamera(words[1], int(words[2]), int(words[3]), params)
        except (ValueError, IndexError) as error:
            left_out.append(_cut(path, number, line, error))
    return cameras, left_out


def _text_images(path: Path, cameras: dict[int, ModelCamera]) -> tuple[tuple[ModelImage, ...], list[LeftOut]]:
    """Every image has a line of its own and one, often empty, of its points; editors drop empty lines."""
    images, left_out = [], []
    points_follow = False
    for number, line in _lines(path):
        if line.startswith("#"):
            continue
        words = line.split(maxsplit=9)
        if points_follow and not _is_image(words, cameras):
            points_follow = False
            continue
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:8]]
            images.append(
                ModelImage(int(words[0]), _four(values[:4]), _three(values[4:]), int(words[8]), words[9].strip())
            )
        except (ValueError, IndexError) as error:
            left_out.append(_cut(path, number, line, error))
        points_follow = True
    return tuple(images), left_out


def _is_image(words: Sequence[str], cameras: dict[int, ModelCamera]) -> bool:
    """Whether a line describes an image though it stands where points belong: these are numbers alone."""
    if len(words) < 10 or not words[0].isdecimal() or not words[8].isdecimal() or int(words[8]) not in cameras:
        return False
    try:
        tuple(map(float, words[9].split()))
    except ValueError:
        return True
    return False


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    if path.stat().st_size > MODEL_BYTES:
        raise CaptureError(f"{path} has {path.stat().st_size} bytes, more than {MODEL_BYTES}; split the model")
    with path.open(encoding="utf-8-sig", errors="replace", newline=None) as file:
        for number, line in enumerate(file, start=1):
            yield number, line.strip()


def _cut(path: Path, number: int, line: str, error: Exception) -> LeftOut:
    return LeftOut(
        f"{path.name}:{number}", f"{path}, line {number}: {line[:60]!r} cannot be read ({error}); correct it"
    )


def _four(values: Sequence[float]) -> tuple[float, float, float, float]:
    a, b, c, d = values
    return a, b, c, d


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    a, b, c = values
    return a, b, c
