"""Record3D's metadata built as it is documented: quaternions x y z w, K column by column, OpenGL axes, y up."""

import json
import zipfile
from pathlib import Path

import pytest

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import SIZE, disagreement, known_cameras, pictures, quaternion, z_up

CAMERAS = [
    type(camera)(f"{i}.jpg", camera.right, camera.down, camera.forward, camera.eye)
    for i, camera in enumerate(known_cameras(12, up=(0.0, 1.0, 0.0)))
]


def metadata(*, axes=lambda camera: camera.opengl, **changes) -> dict:
    poses = []
    for camera in CAMERAS:
        w, x, y, z = quaternion(axes(camera)[:3, :3]).tolist()
        poses.append([x, y, z, w, *camera.eye.tolist()])
    (fx, fy), (cx, cy) = CAMERAS[0].focal, CAMERAS[0].centre
    k = [fx, 0, 0, 0, fy, 0, cx, cy, 1]
    return {"w": SIZE[0], "h": SIZE[1], "fps": 30, "K": k, "poses": poses, "dw": 192, "dh": 256} | changes


def write(root: Path, document: dict, *, name: str = "metadata.json", folder: str = "rgb") -> Path:
    pictures(root / folder, CAMERAS)
    (root / name).write_text(json.dumps(document))
    return root


def test_points_fall_where_they_should_in_a_world_with_z_up(tmp_path):
    captures = read_captures(write(tmp_path / "scan", metadata()))
    assert (captures.source.kind, captures.coordinates, captures.name) == ("Record3D", "metric", "scan")
    assert disagreement(captures, CAMERAS, moved=z_up) < 0.01
    times = {photo.file: photo.time_s for photo in captures.photos}
    assert times["rgb/10.jpg"] == pytest.approx(1 / 3)
    assert disagreement(read_captures(tmp_path / "scan" / "metadata.json"), CAMERAS, moved=z_up) < 0.01


def test_opencv_axes_and_a_transposed_matrix_would_show(tmp_path):
    wrong = read_captures(write(tmp_path, metadata(axes=lambda camera: camera.opencv)))
    assert disagreement(wrong, CAMERAS, moved=z_up) > 1
    mixed = read_captures(write(tmp_path, metadata(K=[57.0, 0, 0, 0, 55.0, 0, 22.5, 33.0, 1])))
    assert disagreement(mixed, CAMERAS, moved=z_up) > 1


def test_intrinsics_and_times_of_each_photo(tmp_path):
    lens = [[*CAMERAS[0].focal, *CAMERAS[0].centre]] * len(CAMERAS)
    times = [100.0 + 0.25 * i for i in range(len(CAMERAS))]
    document = metadata(K=[1, 0, 0, 0, 1, 0, 1, 1, 1], perFrameIntrinsicCoeffs=lens, frameTimestamps=times)
    captures = read_captures(write(tmp_path, document))
    assert disagreement(captures, CAMERAS, moved=z_up) < 0.01
    assert max(photo.time_s for photo in captures.photos) == pytest.approx(2.75)


def test_an_r3d_file_is_unpacked_beside_itself(tmp_path):
    write(tmp_path / "inside", metadata(), name="metadata", folder="rgbd")
    with zipfile.ZipFile(tmp_path / "scan.r3d", "w") as archive:
        for path in sorted((tmp_path / "inside").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "inside").as_posix())
        archive.writestr("rgbd/0.depth", b"depth")
    for _ in range(2):
        captures = read_captures(tmp_path / "scan.r3d")
        assert captures.source.kind == "Record3D"
        assert disagreement(captures, CAMERAS, moved=z_up) < 0.01


def test_broken_entries_are_left_out(tmp_path):
    document = metadata()
    document["poses"][1] = [0, 0, 0, 0, 1, 2, 3]
    document["poses"][2] = [1, 2]
    document["poses"][3] = "pose"
    root = write(tmp_path, document)
    (root / "rgb" / "4.jpg").unlink()
    (root / "rgb" / "5.jpg").write_bytes(b"")
    captures = read_captures(root)
    found = {left.file: left.problem for left in captures.source.left_out}
    assert set(found) == {"rgb/1.jpg", "rgb/2.jpg", "rgb/3.jpg", "rgb/4", "rgb/5.jpg"}
    assert "length 0" in found["rgb/1.jpg"]
    assert len(captures.photos) == 7


def test_broken_metadata_is_refused(tmp_path):
    root = write(tmp_path, metadata(w=0))
    with pytest.raises(CaptureError, match=r"metadata\.json: w: .*greater than 0"):
        read_captures(root)
    (root / "metadata.json").write_text("{")
    with pytest.raises(CaptureError, match="is not JSON"):
        read_captures(root)
