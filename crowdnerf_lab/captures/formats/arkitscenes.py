"""ARKitScenes: a .traj of poses, a folder of photos named VIDEO_TIME.png and one of their intrinsics, .pincam.

A line of the .traj is a time (s), a rotation vector and a translation, world-to-camera, OpenCV axes, metres, z up. A
.pincam is one line: width, height, focal lengths and principal point in pixels.
"""

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.captures.axes import inverse, pose_of_rotation_vector
from crowdnerf_lab.captures.bundle import CaptureSet, LeftOut, Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats.calibrated import calibrated_photo, captures_of
from crowdnerf_lab.captures.formats.lens import Lens
from crowdnerf_lab.captures.formats.pictures import Pictures, is_photo, visible

LOOKED_FOR = "a .traj with lowres_wide/ and .pincam files (ARKitScenes)"
CONVENTION = "world-to-camera rotation vectors, OpenCV axes, metres, z up"
_FOLDERS = ("wide", "vga_wide", "lowres_wide", "ultrawide")
POSE_APART_S = 0.006
"""A pose belongs to a photo so near in time: the data set's own code takes 5 ms, and times are rounded to 1."""
TRAJECTORY_BYTES = 64 << 20


def recognises(path: Path) -> bool:
    """A folder with a .traj and photos, or the .traj."""
    return _trajectory(path) is not None


def read(path: Path) -> CaptureSet:
    """The photos that have a pose, with their cameras. Raises CaptureError when none can be used."""
    file = _trajectory(path)
    if file is None:
        raise CaptureError(f"{path} holds no .traj; give the folder of one ARKitScenes video")
    return captures_of(
        file,
        list(_entries(file)),
        root=file.parent,
        kind="ARKitScenes",
        convention=CONVENTION,
        coordinates="metric",
    )


def _trajectory(path: Path) -> Path | None:
    files = [path] if path.is_file() else visible(path)
    return next((file for file in files if file.is_file() and file.suffix.lower() == ".traj"), None)


def _entries(file: Path) -> Iterator[Photo | LeftOut]:
    root = file.parent
    folder = next((name for name in _FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise CaptureError(f"{root} holds none of {', '.join(f'{name}/' for name in _FOLDERS)}; put the photos back")
    poses: dict[float, Float[Tensor, "3 4"]] = {}
    for number, line in enumerate(_lines(file), start=1):
        try:
            time_s, *numbers = (float(word) for word in line.split())
            poses[time_s] = inverse(pose_of_rotation_vector(numbers[:3], numbers[3:]))
        except ValueError as error:
            yield LeftOut(f"{file.name}:{number}", f"{file}, line {number}: {line[:60]!r} cannot be read ({error})")
    lenses = _Lenses(root / f"{folder}_intrinsics")
    times, pictures = sorted(poses), Pictures(root)
    start = times[0] if times else 0.0
    for path in visible(root / folder):
        if not is_photo(path):
            continue
        try:
            taken_s = float(path.stem.rpartition("_")[2])
            pose = poses[_nearest(times, taken_s)]
            lens = lenses.of(path.stem)
        except ValueError as error:
            yield LeftOut(f"{folder}/{path.name}", f"{path}: {error}")
            continue
        picture = pictures.opened(f"{folder}/{path.name}")
        if isinstance(picture, LeftOut):
            yield picture
            continue
        yield calibrated_photo(picture, pose, lens, file=file, time_s=taken_s - start)


class _Lenses:
    """The .pincam files of a folder, found by their photo's name or by the nearest time."""

    def __init__(self, folder: Path) -> None:
        files = [path for path in visible(folder) if path.suffix.lower() == ".pincam"] if folder.is_dir() else []
        self._files = {path.stem: path for path in files}
        self._folder = folder

    def of(self, stem: str) -> Lens:
        """The lens of a photo. Raises ValueError where there is none."""
        video, _, time = stem.rpartition("_")
        names = [stem] + [f"{video}_{float(time) + step:.3f}" for step in (-0.001, 0.001)]
        file = next((self._files[name] for name in names if name in self._files), None)
        if file is None:
            raise ValueError(f"no {self._folder.name}/{stem}.pincam; put it back")
        width, height, fx, fy, cx, cy = (float(word) for word in next(iter(_lines(file)), "").split())
        return Lens((fx, fy), (cx, cy), (width, height))


def _nearest(times: list[float], wanted: float) -> float:
    position = bisect_left(times, wanted)
    near = min(times[max(position - 1, 0) : position + 1], key=lambda time: abs(time - wanted), default=None)
    if near is None or abs(near - wanted) > POSE_APART_S:
        raise ValueError(f"no pose within {POSE_APART_S * 1000:.0f} ms of its time; the photo is not used")
    return near


def _lines(file: Path) -> list[str]:
    if file.stat().st_size > TRAJECTORY_BYTES:
        raise CaptureError(f"{file} has {file.stat().st_size} bytes, more than {TRAJECTORY_BYTES}; split it")
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
