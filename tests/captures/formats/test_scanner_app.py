"""3D Scanner App frames built as the app writes them: matrices row by row, OpenGL axes, y up."""

import json
from pathlib import Path

import numpy as np
import pytest

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import disagreement, known_cameras, pictures, z_up

CAMERAS = [
    type(camera)(f"frame_{camera.name}", camera.right, camera.down, camera.forward, camera.eye)
    for camera in known_cameras(up=(0.0, 1.0, 0.0))
]


def write(root: Path, *, axes=lambda camera: camera.opengl, order: str = "C") -> Path:
    pictures(root, CAMERAS)
    (root / "info.json").write_text(json.dumps({"device": "phone"}))
    for index, camera in enumerate(CAMERAS):
        k = np.array([[camera.focal[0], 0, camera.centre[0]], [0, camera.focal[1], camera.centre[1]], [0, 0, 1]])
        document = {
            "cameraPoseARFrame": axes(camera).ravel(order=order).tolist(),
            "intrinsics": k.ravel(order=order).tolist(),
            "time": 812.5 + index,
            "frame_index": index,
            "motionQuality": 1,
        }
        (root / f"{Path(camera.name).stem}.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("order", ["C", "F"])
def test_points_fall_where_they_should_in_a_world_with_z_up(tmp_path, order):
    captures = read_captures(write(tmp_path, order=order))
    assert "ARKit" in captures.source.kind
    assert captures.coordinates == "metric"
    assert disagreement(captures, CAMERAS, moved=z_up) < 0.01
    assert [photo.time_s for photo in captures.photos] == [0, 1, 2, 3, 4]


def test_opencv_axes_would_show(tmp_path):
    wrong = read_captures(write(tmp_path, axes=lambda camera: camera.opencv))
    assert disagreement(wrong, CAMERAS, moved=z_up) > 1


def test_frames_without_a_photo_or_a_pose_are_left_out(tmp_path):
    write(tmp_path)
    (tmp_path / "frame_00000.jpg").unlink()
    document = json.loads((tmp_path / "frame_00001.json").read_text())
    (tmp_path / "frame_00001.json").write_text(json.dumps(document | {"cameraPoseARFrame": [0.0] * 16}))
    (tmp_path / "frame_00002.json").write_text(json.dumps({"cameraPoseARFrame": [1.0]}))
    captures = read_captures(tmp_path)
    found = {left.file: left.problem for left in captures.source.left_out}
    assert "does not exist" in found["frame_00000"]
    assert "0, 0, 0, 1" in found["frame_00001.json"]
    assert "cameraPoseARFrame" in found["frame_00002.json"]
    assert len(captures.photos) == 2
    for file in tmp_path.glob("*.jpg"):
        file.unlink()
    with pytest.raises(CaptureError, match="none of the 5"):
        read_captures(tmp_path)
