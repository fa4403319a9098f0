"""Polycam keyframes built as its raw export is documented: t_ij, OpenGL axes, y up."""

import json
from pathlib import Path

import pytest

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import SIZE, KnownCamera, disagreement, known_cameras, pictures, z_up

CAMERAS = known_cameras(up=(0.0, 1.0, 0.0))


def write(root: Path, *, prefix: str = "", axes=lambda camera: camera.opengl) -> Path:
    pictures(root / "keyframes" / f"{prefix}images", CAMERAS)
    folder = root / "keyframes" / f"{prefix}cameras"
    folder.mkdir(parents=True, exist_ok=True)
    for index, camera in enumerate(CAMERAS):
        (folder / f"{Path(camera.name).stem}.json").write_text(json.dumps(keyframe(camera, axes(camera), index)))
    return root


def keyframe(camera: KnownCamera, pose, index: int) -> dict:
    entries = {f"t_{row}{column}": float(pose[row, column]) for row in range(3) for column in range(4)}
    lens = {"fx": camera.focal[0], "fy": camera.focal[1], "cx": camera.centre[0], "cy": camera.centre[1]}
    size = {"width": SIZE[0], "height": SIZE[1]}
    return {**entries, **lens, **size, "timestamp": 5_000_000 + 500_000 * index, "blur_score": 120.0, "neighbors": [1]}


@pytest.mark.parametrize("given", ["", "keyframes"])
@pytest.mark.parametrize("prefix", ["", "corrected_"])
def test_points_fall_where_they_should_in_a_world_with_z_up(tmp_path, given, prefix):
    write(tmp_path, prefix=prefix)
    captures = read_captures(tmp_path / given)
    assert captures.coordinates == "metric"
    assert "Polycam" in captures.source.kind
    assert disagreement(captures, CAMERAS, moved=z_up) < 0.01
    assert [photo.time_s for photo in captures.photos] == pytest.approx([0, 0.5, 1, 1.5, 2])


def test_opencv_axes_or_y_up_would_show(tmp_path):
    captures = read_captures(write(tmp_path / "right"))
    assert disagreement(captures, CAMERAS) > 1
    wrong = read_captures(write(tmp_path / "wrong", axes=lambda camera: camera.opencv))
    assert disagreement(wrong, CAMERAS, moved=z_up) > 1


def test_corrected_keyframes_are_preferred(tmp_path):
    write(tmp_path, axes=lambda camera: camera.opencv)
    write(tmp_path, prefix="corrected_")
    assert disagreement(read_captures(tmp_path), CAMERAS, moved=z_up) < 0.01


def test_broken_keyframes_are_left_out(tmp_path):
    folder = write(tmp_path) / "keyframes" / "cameras"
    (folder / "00000.json").write_text("{")
    document = json.loads((folder / "00001.json").read_text())
    (folder / "00001.json").write_text(json.dumps(document | {"t_00": None}))
    (folder / "00002.json").write_text(json.dumps(document | {"t_11": 7.0}))
    (tmp_path / "keyframes" / "images" / "00003.jpg").unlink()
    captures = read_captures(tmp_path)
    found = {left.file: left.problem for left in captures.source.left_out}
    assert "is not JSON" in found["cameras/00000.json"]
    assert "t_00" in found["cameras/00001.json"]
    assert "no rotation" in found["keyframes/images/00002.jpg"]
    assert "does not exist" in found["keyframes/images/00003"]
    (tmp_path / "keyframes" / "images" / "00004.jpg").unlink()
    with pytest.raises(CaptureError, match="none of the 5 listed photos"):
        read_captures(tmp_path)
