"""ARKitScenes built as its documentation says: world-to-camera rotation vectors, OpenCV axes, .pincam intrinsics."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import SIZE, disagreement, known_cameras, pictures

VIDEO = "41069021"
CAMERAS = [
    type(camera)(f"{VIDEO}_{305.1 + 0.1 * i:.3f}.png", camera.right, camera.down, camera.forward, camera.eye)
    for i, camera in enumerate(known_cameras())
]


def write(root: Path, *, pose=lambda camera: np.linalg.inv(camera.opencv)) -> Path:
    pictures(root / "lowres_wide", CAMERAS)
    intrinsics = root / "lowres_wide_intrinsics"
    intrinsics.mkdir()
    lines = []
    for index, camera in enumerate(CAMERAS):
        matrix = pose(camera)
        vector = Rotation.from_matrix(matrix[:3, :3]).as_rotvec()
        # Poses are stamped to the nanosecond, pictures to the millisecond.
        lines.append(" ".join(map(repr, [305.1004 + 0.1 * index, *vector.tolist(), *matrix[:3, 3].tolist()])))
        time = 305.1 + 0.1 * index + (0.001 if index == 2 else 0.0)
        numbers = [*SIZE, *camera.focal, *camera.centre]
        (intrinsics / f"{VIDEO}_{time:.3f}.pincam").write_text(" ".join(map(str, numbers)))
    (root / "lowres_wide.traj").write_text("\n".join(lines) + "\n")
    return root


def test_points_fall_where_they_should(tmp_path):
    captures = read_captures(write(tmp_path))
    assert (captures.source.kind, captures.coordinates) == ("ARKitScenes", "metric")
    assert disagreement(captures, CAMERAS) < 0.01


@pytest.mark.parametrize("wrong", [lambda c: c.opencv, lambda c: np.linalg.inv(c.opengl)])
def test_the_inverse_pose_or_opengl_axes_would_show(tmp_path, wrong):
    assert disagreement(read_captures(write(tmp_path, pose=wrong)), CAMERAS) > 1


def test_photos_without_pose_or_lens_are_left_out(tmp_path):
    write(tmp_path)
    lines = (tmp_path / "lowres_wide.traj").read_text().splitlines()
    (tmp_path / "lowres_wide.traj").write_text("\n".join(["305.1 one two", *lines[1:]]))
    next((tmp_path / "lowres_wide_intrinsics").glob("*305.200*")).unlink()
    captures = read_captures(tmp_path)
    found = {left.file: left.problem for left in captures.source.left_out}
    assert "cannot be read" in found["lowres_wide.traj:1"]
    assert "no pose within" in found[f"lowres_wide/{VIDEO}_305.100.png"]
    assert "pincam" in found[f"lowres_wide/{VIDEO}_305.200.png"]
    assert len(captures.photos) == 3
    (tmp_path / "lowres_wide").rename(tmp_path / "elsewhere")
    with pytest.raises(CaptureError, match="put the photos back"):
        read_captures(tmp_path)
