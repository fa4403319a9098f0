"""Stray Scanner: odometry.csv and camera_matrix.csv beside rgb.mp4, one pose a frame of the video.

Poses are camera-to-world, a position in metres and a quaternion x, y, z, w, OpenCV axes, in ARKit's world with y up.
Frames that are not there as rgb/000000.jpg yet are taken out of the video into rgb/, evenly, at most FRAMES of them.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from crowdnerf_lab.captures.axes import pose_of_quaternion, y_up_to_z_up
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import DOCUMENT_BYTES, CaptureError
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.lens import Lens
from crowdnerf_lab.captures.formats.pictures import Pictures, is_photo, visible
from crowdnerf_lab.captures.video.videos import VideoError, pictures
from crowdnerf_lab.files import write_atomically

LOOKED_FOR = "odometry.csv with camera_matrix.csv (Stray Scanner)"
CONVENTION = "camera-to-world quaternions x y z w, OpenCV axes, metres, y up (turned to z up)"
ODOMETRY, MATRIX, VIDEO, PHOTOS = "odometry.csv", "camera_matrix.csv", "rgb.mp4", "rgb"
FRAMES = 300
_OLD_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")
"""Early versions wrote neither a header nor times."""


@dataclass(frozen=True)
class _Row:
    line: int
    fields: dict[str, str]


def recognises(path: Path) -> bool:
    """The recording's folder, or its odometry."""
    folder = path if path.is_dir() else path.parent
    named = path.is_dir() or path.name == ODOMETRY
    return named and (folder / ODOMETRY).is_file() and (folder / MATRIX).is_file()


def read(path: Path) -> CaptureSet:
    """The frames with their cameras. Raises CaptureError when the video cannot be read or no frame can be used."""
    root = path if path.is_dir() else path.parent
    file = root / ODOMETRY
    lens, rows = _lens(root / MATRIX), list(_rows(file))
    return captures_of(
        file,
        list(_entries(file, rows, lens, _photos(root, len(rows)))),
        root=root,
        kind="Stray Scanner",
        convention=CONVENTION,
        coordinates="metric",
    )


def _entries(file: Path, rows: list[_Row], shared: Lens, photos: dict[int, str]) -> Iterator[Photo | LeftOut]:
    folder = Pictures(file.parent)
    start: float | None = None
    for number, row in enumerate(rows):
        fields = row.fields
        try:
            frame = int(fields.get("frame", number))
            if frame not in photos:
                continue
            time_s = float(fields.get("timestamp", 0.0))
            position = [float(fields[axis]) for axis in ("x", "y", "z")]
            pose = pose_of_quaternion([float(fields[axis]) for axis in ("qx", "qy", "qz", "qw")], position)
            own = [float(fields[name]) for name in ("fx", "fy", "cx", "cy")] if "fx" in fields else None
        except (KeyError, ValueError) as error:
            yield LeftOut(f"{ODOMETRY}:{row.line}", f"{file}, line {row.line}: {error}; correct it, or drop the line")
            continue
        picture = folder.opened(photos[frame])
        if isinstance(picture, LeftOut):
            yield picture
            continue
        start = time_s if start is None else start
        lens = shared if own is None else Lens((own[0], own[1]), (own[2], own[3]))
        yield calibrated_photo(picture, y_up_to_z_up(pose), lens, file=file, time_s=time_s - start)


def _rows(file: Path) -> Iterator[_Row]:
    if file.stat().st_size > DOCUMENT_BYTES:
        raise CaptureError(f"{file} has {file.stat().st_size} bytes, more than {DOCUMENT_BYTES}; split it")
    columns: tuple[str, ...] = _OLD_COLUMNS
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        for line, words in enumerate(csv.reader(text), start=1):
            plain = tuple(word.strip().lower() for word in words)
            if line == 1 and "qx" in plain:
                columns = plain
            elif plain:
                yield _Row(line, dict(zip(columns, plain, strict=False)))


def _lens(file: Path) -> Lens:
    try:
        rows = [[float(word) for word in line.split(",")] for line in file.read_text(encoding="utf-8-sig").splitlines()]
        return Lens((rows[0][0], rows[1][1]), (rows[0][2], rows[1][2]))
    except (ValueError, IndexError, OSError) as error:
        raise CaptureError(f"{file} is no 3x3 matrix with commas ({error}); export the recording again") from None


def _photos(root: Path, count: int) -> dict[int, str]:
    """Frame numbers to photos: those that are there, else those taken out of the video now."""
    there = visible(root / PHOTOS) if (root / PHOTOS).is_dir() else []
    named = {int(path.stem): f"{PHOTOS}/{path.name}" for path in there if path.stem.isdecimal() and is_photo(path)}
    return named or _taken_out(root, step=max(1, -(-count // FRAMES)))


def _taken_out(root: Path, *, step: int) -> dict[int, str]:
    taken = {}
    try:
        for number, frame in enumerate(pictures(root / VIDEO)):
            if number % step == 0:
                taken[number] = f"{PHOTOS}/{number:06d}.jpg"
                image = Image.fromarray(frame.image().numpy())
                write_atomically(root / taken[number], lambda path, image=image: image.save(path, "JPEG", quality=95))
    except VideoError as error:
        raise CaptureError(f"{root}: its poses belong to frames of {VIDEO}, and {error}") from None
    return taken
