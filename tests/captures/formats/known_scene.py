"""Points and cameras that are known, and where the points fall in the pictures: written without the package's code.

Every format's test writes these cameras in its own convention, reads them and projects: a wrong axis moves the points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crowdnerf_lab.cameras import project
from crowdnerf_lab.captures.bundle import CaptureSet
from crowdnerf_lab.captures.poses.given_poses import camera_of

SIZE = (64, 48)
POINTS = np.array([[0.3, -0.2, 0.1], [-0.7, 0.4, 0.5], [0.1, 0.9, -0.6], [0.5, 0.2, 0.8], [-0.4, -0.6, -0.3]])


@dataclass(frozen=True)
class KnownCamera:
    """right, down, forward: unit vectors in the world; distortion: k1, k2, p1, p2."""

    name: str
    right: np.ndarray
    down: np.ndarray
    forward: np.ndarray
    eye: np.ndarray
    focal: tuple[float, float] = (55.0, 57.0)
    centre: tuple[float, float] = (33.0, 22.5)
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @property
    def opencv(self) -> np.ndarray:
        """Camera-to-world 4x4 with columns right, down, forward."""
        return np.vstack([np.column_stack([self.right, self.down, self.forward, self.eye]), [0, 0, 0, 1]])

    @property
    def opengl(self) -> np.ndarray:
        """Camera-to-world 4x4 with columns right, up, backward."""
        return np.vstack([np.column_stack([self.right, -self.down, -self.forward, self.eye]), [0, 0, 0, 1]])

    def pixels(self, points: np.ndarray = POINTS) -> np.ndarray:
        """Where points fall, by OpenCV's equations."""
        offset = points - self.eye
        x, y = (offset @ axis / (offset @ self.forward) for axis in (self.right, self.down))
        k1, k2, p1, p2 = self.distortion
        r2 = x**2 + y**2
        u = x * (1 + k1 * r2 + k2 * r2**2) + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)
        v = y * (1 + k1 * r2 + k2 * r2**2) + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y
        return np.column_stack([u * self.focal[0] + self.centre[0], v * self.focal[1] + self.centre[1]])


def known_cameras(
    count: int = 5, *, up: tuple[float, float, float] = (0.0, 0.0, 1.0), suffix: str = ".jpg", **lens
) -> list[KnownCamera]:
    """Cameras around the points at different heights, upright with respect to `up`, each rolled a little."""
    up_axis = np.array(up)
    side = np.roll(up_axis, 1)
    other = np.cross(up_axis, side)
    cameras = []
    for i in range(count):
        angle = 0.3 + 1.1 * i
        eye = 4.0 * (np.cos(angle) * side + np.sin(angle) * other) + (0.5 + 0.3 * i) * up_axis
        forward = -eye / np.linalg.norm(eye)
        right = np.cross(forward, up_axis)
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        roll = 0.1 * i
        right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
        cameras.append(KnownCamera(f"{i:05d}{suffix}", right, down, forward, eye, **lens))
    return cameras


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """w, x, y, z of a rotation: the largest component first, as Shepperd (1978) does."""
    m = rotation
    squares = np.array([1 + m[0, 0] + m[1, 1] + m[2, 2], *(1 + 2 * m[i, i] - np.trace(m[:3, :3]) for i in range(3))])
    largest = int(squares.argmax())
    s = 2 * np.sqrt(squares[largest])
    table = {
        0: (s / 4, (m[2, 1] - m[1, 2]) / s, (m[0, 2] - m[2, 0]) / s, (m[1, 0] - m[0, 1]) / s),
        1: ((m[2, 1] - m[1, 2]) / s, s / 4, (m[0, 1] + m[1, 0]) / s, (m[0, 2] + m[2, 0]) / s),
        2: ((m[0, 2] - m[2, 0]) / s, (m[0, 1] + m[1, 0]) / s, s / 4, (m[1, 2] + m[2, 1]) / s),
        3: ((m[1, 0] - m[0, 1]) / s, (m[0, 2] + m[2, 0]) / s, (m[1, 2] + m[2, 1]) / s, s / 4),
    }
    return np.array(table[largest])


def z_up(points: np.ndarray) -> np.ndarray:
    """Points of a world whose y is up, where the package puts them: (x, y, z) becomes (z, x, y)."""
    return points[:, [2, 0, 1]]


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(path, {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG"))
    return path


def pictures(folder: Path, cameras: list[KnownCamera], size: tuple[int, int] = SIZE) -> None:
    for camera in cameras:
        picture(folder / camera.name, size)


def disagreement(
    captures: CaptureSet,
    cameras: list[KnownCamera],
    *,
    moved: Callable[[np.ndarray], np.ndarray] = lambda points: points,
    scale: float = 1.0,
) -> float:
    """The farthest, in pixels, that the cameras as read put a point from where it falls; pictures shrunk by `scale`."""
    photos = {Path(photo.file).name: photo for photo in captures.photos}
    assert len(photos) == len(cameras)
    worst = 0.0
    for known in cameras:
        photo = photos[known.name]
        assert photo.camera is not None
        camera = camera_of(photo.camera, width=photo.width, height=photo.height)
        points = torch.from_numpy(moved(POINTS)).to(torch.float32)
        found, depth = project(camera[torch.zeros(len(points), dtype=torch.int64)], points)
        if not bool((depth > 0).all()):
            return float("inf")
        worst = max(worst, float(np.abs(found.numpy() - known.pixels() * scale).max()))
    return worst
