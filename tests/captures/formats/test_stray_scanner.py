"""Stray Scanner recordings built as its format document and its source say: OpenCV axes in ARKit's world."""

from pathlib import Path

import pytest
import torch

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.formats import stray_scanner
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.captures.video.videos import VideoError
from tests.captures.formats.known_scene import SIZE, disagreement, known_cameras, pictures, quaternion, z_up

CAMERAS = [
    type(camera)(f"{i:06d}.jpg", camera.right, camera.down, camera.forward, camera.eye)
    for i, camera in enumerate(known_cameras(up=(0.0, 1.0, 0.0)))
]


def write(root: Path, *, axes: str = "opencv", header: bool = True) -> Path:
    root.mkdir(exist_ok=True)
    (fx, fy), (cx, cy) = CAMERAS[0].focal, CAMERAS[0].centre
    (root / "camera_matrix.csv").write_text(f"{fx}, 0.0, {cx}\n0.0, {fy}, {cy}\n0.0, 0.0, 1.0")
    lines = ["timestamp, frame, x, y, z, qx, qy, qz, qw"] if header else []
    for index, camera in enumerate(CAMERAS):
        w, x, y, z = quaternion(getattr(camera, axes)[:3, :3]).tolist()
        numbers = ", ".join(map(repr, [*camera.eye.tolist(), x, y, z, w]))
        lines.append(f"{100 + 0.1 * index}, {index:06d}, {numbers}" if header else numbers)
    (root / "odometry.csv").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("header", [True, False])
def test_points_fall_where_they_should_in_a_world_with_z_up(tmp_path, header):
    pictures(write(tmp_path, header=header) / "rgb", CAMERAS)
    captures = read_captures(tmp_path)
    assert (captures.source.kind, captures.coordinates) == ("Stray Scanner", "metric")
    assert disagreement(captures, CAMERAS, moved=z_up) < 0.01


def test_opengl_axes_would_show(tmp_path):
    pictures(write(tmp_path, axes="opengl") / "rgb", CAMERAS)
    assert disagreement(read_captures(tmp_path), CAMERAS, moved=z_up) > 1


class Frame:
    def __init__(self, number: int) -> None:
        self.number = number

    def image(self) -> torch.Tensor:
        return torch.full((SIZE[1], SIZE[0], 3), self.number * 10, dtype=torch.uint8)


def test_frames_are_taken_out_of_the_video_once(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(stray_scanner, "FRAMES", 3)
    monkeypatch.setattr(stray_scanner, "pictures", lambda path: (Frame(number) for number in range(5)))
    captures = read_captures(tmp_path)
    assert [photo.file for photo in captures.photos] == ["rgb/000000.jpg", "rgb/000002.jpg", "rgb/000004.jpg"]
    assert disagreement(captures, CAMERAS[::2], moved=z_up) < 0.01
    assert [photo.time_s for photo in captures.photos] == pytest.approx([0, 0.2, 0.4])
    monkeypatch.setattr(stray_scanner, "pictures", None)
    assert read_captures(tmp_path).photos == captures.photos


def test_a_video_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def missing(path: Path):
        raise VideoError(f"{path} does not exist; put the video back")

    monkeypatch.setattr(stray_scanner, "pictures", missing)
    with pytest.raises(CaptureError, match=r"rgb\.mp4"):
        read_captures(write(tmp_path))
    (tmp_path / "camera_matrix.csv").write_text("1, 2")
    with pytest.raises(CaptureError, match="no 3x3 matrix"):
        read_captures(tmp_path)
