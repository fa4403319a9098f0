"""Records of a pose log, whatever their fields are called: a position, a rotation, a lens, a photo and a time."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.captures.axes import pose_of_quaternion, pose_of_sixteen
from crowdnerf_lab.captures.documents import DOCUMENT_BYTES, CaptureError, read_document
from crowdnerf_lab.captures.formats.lens import Lens

_TABLES = (".csv", ".tsv", ".txt")
SUFFIXES = (*_TABLES, ".json", ".jsonl", ".ndjson")
Fields = dict[str, Any]
"""Lower-case names without underscores, to values; nested names follow each other."""
_LISTS = ("frames", "poses", "records", "keyframes", "data", "cameras", "entries")
_DEEPEST = 4
_AXES = ("x", "y", "z")
_POSITIONS = ("t", "p", "translation", "position", "posetranslation", "poseposition", "artranslation", "pos", "")
_ROTATIONS = ("q", "rotation", "quaternion", "orientation", "poserotation", "posequaternion", "arquaternion", "quat")
_MATRICES = (
    "transform",
    "cameratransform",
    "pose",
    "matrix",
    "transformmatrix",
    "cameratoworld",
    "posematrix",
    "viewtoworld",
)
_LENS_PARENTS = ("", "intrinsics", "cameraintrinsics", "camera", "imageintrinsics")
_IMAGES = (
    "image",
    "file",
    "filename",
    "imagefile",
    "imagename",
    "imagepath",
    "filepath",
    "framename",
    "photo",
    "rgb",
    "name",
)
_NUMBERS = ("frame", "frameid", "frameindex", "framenumber", "index", "id", "timestamp", "timestampns", "time")
_TIMES = (("timestampns", 1e-9), ("timestamp", 1.0), ("time", 1.0), ("timestamps", 1.0), ("t", 1.0))
_CAMERA_FILES = ("intrinsics", "camera_intrinsics", "calibration", "camera", "camera_matrix")
_CAMERA_BYTES = 1 << 20
_NANOSECONDS = 1e12
"""Time stamps above this are nanoseconds: ARCore counts in these, from when the phone started."""


def records_in(file: Path) -> Iterator[Fields]:
    """A log's records in their order. Raises ValueError for a file that holds no table and no list of records."""
    if file.stat().st_size > DOCUMENT_BYTES:
        raise CaptureError(f"{file} has {file.stat().st_size} bytes, more than {DOCUMENT_BYTES}; split it")
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    records = _rows(file, text) if file.suffix.lower() in _TABLES else _listed(file, text)
    yield from (flattened(record) for record in records)


def pose_in(record: Fields) -> Float[Tensor, "3 4"] | None:
    """Camera-to-world of a record, None where it holds none. Raises ValueError for numbers that are no pose."""
    for name in _MATRICES:
        values = record.get(name)
        if isinstance(values, list) and len(flat := _flat(values)) in (12, 16):
            return pose_of_sixteen([*flat, 0.0, 0.0, 0.0, 1.0] if len(flat) == 12 else flat)
    rotation = next((found for name in _ROTATIONS if (found := _numbers(record, name, (*_AXES, "w")))), None)
    position = next((found for name in _POSITIONS if (found := _numbers(record, name, _AXES))), None)
    if rotation is None or position is None:
        return None
    return pose_of_quaternion(rotation, position)


def lens_in(record: Fields) -> Lens | None:
    """The lens of a record, None where it tells no focal length."""
    for parent in _LENS_PARENTS:
        values = record.get(parent)
        if parent and isinstance(values, list) and len(flat := _flat(values)) in (4, 9):
            fx, fy, cx, cy = flat if len(flat) == 4 else (flat[0], flat[4], flat[2] or flat[6], flat[5] or flat[7])
            return Lens((fx, fy), (cx, cy), _size(record, ""))
        fx = _first(record, (f"{parent}fx", f"{parent}focallengthx", f"{parent}flx"))
        if fx is None:
            continue
        fy = _first(record, (f"{parent}fy", f"{parent}focallengthy", f"{parent}fly"))
        cx = _first(record, (f"{parent}cx", f"{parent}principalpointx"))
        cy = _first(record, (f"{parent}cy", f"{parent}principalpointy"))
        size = _size(record, parent) or _size(record, "")
        return Lens((fx, fx if fy is None else fy), None if cx is None or cy is None else (cx, cy), size)
    return None


def lens_beside(folder: Path) -> Lens | None:
    """The lens that a camera file in a folder describes: by names, or fx, fy, cx, cy or a 3x3 matrix as numbers alone.

    Raises ValueError for numbers that are none.
    """
    for name in _CAMERA_FILES:
        for suffix in (".json", ".csv", ".txt"):
            file = folder / f"{name}{suffix}"
            if not file.is_file() or file.stat().st_size > _CAMERA_BYTES:
                continue
            if suffix == ".json":
                return lens_in(flattened(read_document(file)[1]))
            text = file.read_text(encoding="utf-8-sig", errors="replace")
            words = text.replace(",", " ").split()
            if len(words) in (4, 9) and not any(word[0].isalpha() for word in words):
                return lens_in({"intrinsics": words})
            return next((lens_in(flattened(row)) for row in _rows(file, text)), None)
    return None


def image_of(record: Fields) -> str | None:
    """The photo that a record names, or the number that its photo is named after."""
    for name in chain(_IMAGES, _NUMBERS):
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None


def time_in(record: Fields) -> float | None:
    """Seconds."""
    for name, unit in _TIMES:
        value = record.get(name)
        if isinstance(value, (int, float, str)) and value != "":
            time = _number(value) * unit
            if not math.isfinite(time):
                raise ValueError(f"{name} {value!r:.40} is no time")
            return time * 1e-9 if time > _NANOSECONDS else time
    return None


def flattened(record: Any) -> Fields:
    """Names without case, underscores and blanks; what is nested follows its parent's name."""
    fields: Fields = {}
    _flatten(record, "", fields, depth=0)
    return fields


def _flatten(value: Any, name: str, fields: Fields, *, depth: int) -> None:
    if isinstance(value, dict) and depth < _DEEPEST:
        for key, inner in value.items():
            plain = "".join(filter(str.isalnum, str(key))).lower()
            _flatten(inner, name + plain, fields, depth=depth + 1)
    else:
        fields.setdefault(name, value)


def _rows(file: Path, text: str) -> list[Any]:
    """The rows of a table by its header, which may be a comment; its columns stand apart by commas, tabs or blanks."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines[:1] = [line.lstrip("#").strip() for line in lines[:1]]
    delimiter = next((mark for mark in (",", ";", "\t") if lines and mark in lines[0]), None)
    if delimiter is None:
        lines, delimiter = ["\t".join(line.split()) for line in lines], "\t"
    try:
        rows = csv.DictReader((line for line in lines if not line.startswith("#")), delimiter=delimiter)
        return [{str(name).strip(): _trimmed(value) for name, value in row.items()} for row in rows]
    except csv.Error as error:
        raise ValueError(f"{file} is no table ({error})") from None


def _trimmed(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _listed(file: Path, text: str) -> list[Any]:
    """The records of a JSON list, of a list inside an object (which tells what all share), or of lines of JSON."""
    try:
        if file.suffix.lower() in (".jsonl", ".ndjson"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error})") from None
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        raise ValueError(f"{file} holds no list of records")
    lists = (document.get(name) for name in _LISTS)
    records = next((records for records in lists if isinstance(records, list)), None)
    if records is None:
        raise ValueError(f"{file} holds no list of records")
    shared = {name: value for name, value in document.items() if value is not records}
    return [{**shared, **record} if isinstance(record, dict) else record for record in records]


def _numbers(record: Fields, name: str, axes: Sequence[str]) -> tuple[float, ...] | None:
    """Numbers under name_x, name_y and so on, or in a list under the name."""
    values = record.get(name) if name else None
    if isinstance(values, list) and len(values) == len(axes):
        return tuple(_number(value) for value in values)
    if not all(name + axis in record for axis in axes):
        return None
    return tuple(_number(record[name + axis]) for axis in axes)


def _size(record: Fields, parent: str) -> tuple[float, float] | None:
    width = _first(record, (f"{parent}width", f"{parent}w", f"{parent}imagewidth", f"{parent}imagedimensionsx"))
    height = _first(record, (f"{parent}height", f"{parent}h", f"{parent}imageheight", f"{parent}imagedimensionsy"))
    return None if width is None or height is None else (width, height)


def _first(record: Fields, names: Sequence[str]) -> float | None:
    return next((_number(record[name]) for name in names if record.get(name) not in (None, "")), None)


def _flat(values: list[Any]) -> list[float]:
    """Numbers of a list, or of a list of lists."""
    nested = chain.from_iterable(value if isinstance(value, list) else [value] for value in values[:64])
    return [_number(value) for value in nested]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r:.40} is no number") from None
