"""LLFF's poses_bounds.npy beside its images: one row a photo, the photos in order of their names.

A row holds a 3x5 matrix, row by row, and the nearest and farthest depth. Its columns are the camera's down, right and
backward axes, its position, and height, width and focal length in pixels of the full-size photo.
"""

import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from crowdnerf_lab.captures.axes import llff_to_opencv
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.lens import Lens
from crowdnerf_lab.captures.formats.pictures import Pictures, is_photo, visible

POSES_BOUNDS = "poses_bounds.npy"
LOOKED_FOR = f"{POSES_BOUNDS} (LLFF)"
CONVENTION = "camera-to-world, columns down, right, backward; photos in order of their names"
POSES_BYTES = 64 << 20
_DAMAGE = (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError, RecursionError, tokenize.TokenError)
"""What numpy raises over the header of a mangled array: it is Python's own syntax."""


def recognises(path: Path) -> bool:
    """poses_bounds.npy, or a folder that holds it."""
    return _file(path).is_file()


def read(path: Path) -> CaptureSet:
    """The photos with their cameras. Raises CaptureError for another array, and unless every row has its photo."""
    file = _file(path)
    rows = _rows(file)
    folder, names = _photos(file.parent, len(rows))
    return captures_of(
        file,
        _entries(file, rows, [f"{folder}/{name}" if folder else name for name in names]),
        root=file.parent,
        kind="LLFF",
        convention=CONVENTION,
        coordinates="arbitrary",
    )


def _file(path: Path) -> Path:
    return path / POSES_BOUNDS if path.is_dir() else path if path.name == POSES_BOUNDS else path / POSES_BOUNDS


def _rows(file: Path) -> np.ndarray:
    if file.stat().st_size > POSES_BYTES:
        raise CaptureError(f"{file} has {file.stat().st_size} bytes, more than {POSES_BYTES}; split the scene")
    try:
        # Mapped, so that a header that promises more numbers than there are allocates nothing; np.load would also
        # open archives.
        array = np.lib.format.open_memmap(file, mode="r")
    except _DAMAGE as error:
        raise CaptureError(f"{file} is no array of numbers ({error}); write it again with LLFF's imgs2poses") from None
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != 2
        or array.shape[1] not in (15, 17)
        or array.dtype.kind not in "fiu"
    ):
        shape = getattr(array, "shape", "no shape")
        raise CaptureError(
            f"{file} has the shape {shape}, not 17 numbers a photo; write it again with LLFF's imgs2poses"
        )
    return np.array(array[:, :15], dtype=np.float64).reshape(-1, 3, 5)


def _photos(root: Path, count: int) -> tuple[str, list[str]]:
    """The folder with as many photos as there are poses, full-size before shrunk, and their names in order."""
    copies = sorted(path.name for path in visible(root) if path.is_dir() and path.name.lower().startswith("images_"))
    full = [path.name for path in visible(root) if path.is_dir() and path.name.lower() in ("images", "rgb", "input")]
    found = {}
    for folder in (*full, *copies, ""):
        names = sorted(path.name for path in visible(root / folder) if path.is_file() and is_photo(path))
        if len(names) == count:
            return folder, names
        found[folder or "."] = len(names)
    counts = ", ".join(f"{number} in {folder}" for folder, number in found.items())
    raise CaptureError(
        f"{root / POSES_BOUNDS} has {count} poses and no folder as many photos ({counts}): which photo belongs to "
        "which pose is not known; put back or take out photos until the numbers agree"
    )


def _entries(file: Path, rows: np.ndarray, names: list[str]) -> Iterator[Photo | LeftOut]:
    pictures = Pictures(file.parent)
    for name, row in zip(names, rows, strict=True):
        picture = pictures.opened(name)
        if isinstance(picture, LeftOut):
            yield picture
            continue
        height, width, focal = row[:, 4].tolist()
        pose = llff_to_opencv(torch.from_numpy(row[:, :4].copy()))
        yield calibrated_photo(picture, pose, Lens((focal, focal), size=(width, height)), file=file)
