"""Photos stored on their side: the camera that was found for the stored pixels fits the upright picture."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import SIZE, KnownCamera, disagreement, known_cameras
from tests.captures.formats.test_colmap import write_binary

W, H = SIZE
UPRIGHT = {
    1: lambda u, v: (u, v),
    3: lambda u, v: (W - u, H - v),
    6: lambda u, v: (H - v, u),
    8: lambda u, v: (v, W - u),
}
"""Where a stored pixel lies in the picture that is turned upright, by EXIF's definition of the orientations."""


def scene(root, orientation: int, size=SIZE) -> list[KnownCamera]:
    cameras = known_cameras(3, distortion=(0.05, -0.01, 0.02, -0.01))
    write_binary(root / "sparse" / "0", cameras)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for camera in cameras:
        (root / "images").mkdir(exist_ok=True)
        Image.new("RGB", size).save(root / "images" / camera.name, exif=exif)
    return cameras


class Turned(KnownCamera):
    orientation = 1

    def pixels(self, points=None) -> np.ndarray:
        stored = super().pixels() if points is None else super().pixels(points)
        return np.column_stack(UPRIGHT[self.orientation](stored[:, 0], stored[:, 1]))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_camera_turns_with_the_picture(tmp_path, orientation, monkeypatch):
    cameras = scene(tmp_path, orientation)
    monkeypatch.setattr(Turned, "orientation", orientation)
    turned = [Turned(c.name, c.right, c.down, c.forward, c.eye, c.focal, c.centre, c.distortion) for c in cameras]
    captures = read_captures(tmp_path)
    assert captures.source.left_out == ()
    assert disagreement(captures, turned) < 0.01
    photo = captures.photos[0]
    assert (photo.width, photo.height) == ((H, W) if orientation in (6, 8) else (W, H))


def test_a_lens_for_the_upright_picture_stays(tmp_path):
    cameras = scene(tmp_path, 6, size=(H, W))
    assert disagreement(read_captures(tmp_path), cameras) < 0.01


def test_mirrored_pictures_are_left_out(tmp_path):
    scene(tmp_path, 2)
    scene(tmp_path / "other", 1)
    (tmp_path / "images" / "00000.jpg").write_bytes((tmp_path / "other" / "images" / "00000.jpg").read_bytes())
    captures = read_captures(tmp_path)
    assert len(captures.photos) == 1
    assert all("mirrored" in left.problem for left in captures.source.left_out)
