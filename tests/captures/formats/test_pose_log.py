"""Pose logs as apps of ARKit and ARCore write them: tables and JSON under many names, OpenGL axes, y up."""

import json
from pathlib import Path

import pytest

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import (
    SIZE,
    KnownCamera,
    disagreement,
    known_cameras,
    pictures,
    quaternion,
    z_up,
)

CAMERAS = known_cameras(up=(0.0, 1.0, 0.0))
LENS = dict(zip(("fx", "fy", "cx", "cy"), (*CAMERAS[0].focal, *CAMERAS[0].centre), strict=True))


def xyzw(camera: KnownCamera, axes: str = "opengl") -> list[float]:
    w, x, y, z = quaternion(getattr(camera, axes)[:3, :3]).tolist()
    return [x, y, z, w]


def table(header: str, *, axes: str = "opengl", named: bool = True, lens: bool = True) -> str:
    lines = [header]
    for index, camera in enumerate(CAMERAS):
        first = [camera.name] if named else [f"{index}"]
        values = [8_000_000_000_000 + 500_000_000 * index, *camera.eye.tolist(), *xyzw(camera, axes)]
        lines.append(", ".join([*first, *map(repr, values), *(map(repr, LENS.values()) if lens else ())]))
    return "\n".join(lines) + "\n"


HEADERS = (
    "image,timestamp,tx,ty,tz,qx,qy,qz,qw,fx,fy,cx,cy",
    "# filename, timestamp_ns, pos_x, pos_y, pos_z, quat_x, quat_y, quat_z, quat_w, fx, fy, cx, cy",
    "\ufeffImage,Timestamp,x,y,z,qx,qy,qz,qw,focal_length_x,focal_length_y,principal_point_x,principal_point_y",
)


@pytest.mark.parametrize("header", HEADERS)
def test_tables_under_many_names(tmp_path, header):
    pictures(tmp_path / "images", CAMERAS)
    (tmp_path / "poses.csv").write_text(table(header), encoding="utf-8")
    captures = read_captures(tmp_path)
    assert "ARCore" in captures.source.kind
    assert captures.coordinates == "metric"
    assert disagreement(captures, CAMERAS, moved=z_up) < 0.01
    assert [photo.time_s for photo in captures.photos] == pytest.approx([0, 0.5, 1, 1.5, 2])


def test_opencv_axes_would_show(tmp_path):
    pictures(tmp_path / "images", CAMERAS)
    (tmp_path / "poses.csv").write_text(table(HEADERS[0], axes="opencv"))
    assert disagreement(read_captures(tmp_path), CAMERAS, moved=z_up) > 1


def test_frame_numbers_and_a_camera_file_beside(tmp_path):
    pictures(tmp_path / "frames", CAMERAS)
    (tmp_path / "arcore.csv").write_text(table("frame,timestamp,tx,ty,tz,qx,qy,qz,qw", named=False, lens=False))
    camera = {"focalLength": {"x": LENS["fx"], "y": LENS["fy"]}, "principalPoint": {"x": LENS["cx"], "y": LENS["cy"]}}
    (tmp_path / "camera_intrinsics.json").write_text(json.dumps(camera))
    assert disagreement(read_captures(tmp_path), CAMERAS, moved=z_up) < 0.01


CAMERA_FILES = {
    "intrinsics.txt": "{fx} {fy} {cx} {cy}",
    "camera_matrix.csv": "{fx},0,{cx}\n0,{fy},{cy}\n0,0,1\n",
    "camera_intrinsics.csv": "fx,fy,cx,cy,width,height\n{fx},{fy},{cx},{cy},64,48\n",
}


@pytest.mark.parametrize("name", CAMERA_FILES)
def test_columns_apart_by_blanks_photos_named_after_their_times_and_a_matrix_beside(tmp_path, name):
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    cameras = []
    for index, c in enumerate(CAMERAS):
        time = 8_000_000_000_000 + 500_000_000 * index
        cameras.append(KnownCamera(f"frame_{time}.jpg", c.right, c.down, c.forward, c.eye))
        lines.append("  ".join(map(repr, [time, *c.eye.tolist(), *xyzw(c)])))
    pictures(tmp_path / "rgb", cameras)
    (tmp_path / "arcore_poses.txt").write_text("\n".join(lines))
    (tmp_path / name).write_text(CAMERA_FILES[name].format(**LENS))
    captures = read_captures(tmp_path)
    assert captures.source.left_out == ()
    assert disagreement(captures, cameras, moved=z_up) < 0.01


def arkit(camera: KnownCamera) -> dict:
    """Columns of a simd_float4x4, and intrinsics by columns."""
    k = [[LENS["fx"], 0, 0], [0, LENS["fy"], 0], [LENS["cx"], LENS["cy"], 1]]
    return {"imageName": camera.name, "transform": camera.opengl.T.tolist(), "intrinsics": k, "timestamp": 12.5}


def arcore(camera: KnownCamera) -> dict:
    size = {"width": 2 * SIZE[0], "height": 2 * SIZE[1]}
    lens = {name: 2 * value for name, value in LENS.items()}
    pose = {"translation": camera.eye.tolist(), "rotation": xyzw(camera)}
    return {"file": f"images/{camera.name}", "pose": pose, "intrinsics": {**lens, **size}, "timestamp_ns": 10}


@pytest.mark.parametrize("record", [arkit, arcore])
@pytest.mark.parametrize("form", ["list", "frames", "lines"])
def test_json_under_many_names(tmp_path, record, form):
    pictures(tmp_path / "images", CAMERAS)
    records = [record(camera) for camera in CAMERAS]
    if form == "lines":
        (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, records)))
    else:
        (tmp_path / "log.json").write_text(
            json.dumps(records if form == "list" else {"device": "x", "frames": records})
        )
    assert disagreement(read_captures(tmp_path), CAMERAS, moved=z_up) < 0.01


def test_records_that_cannot_be_used_are_left_out(tmp_path):
    pictures(tmp_path / "images", CAMERAS)
    records = [arcore(camera) for camera in CAMERAS]
    records[0]["pose"]["rotation"] = [0.0, 0.0, 0.0, 0.0]
    records[1]["file"] = "images/gone.jpg"
    del records[2]["pose"]
    records[3]["intrinsics"] = {}
    (tmp_path / "log.json").write_text(json.dumps(records[::-1]))
    captures = read_captures(tmp_path)
    found = {left.file: left.problem for left in captures.source.left_out}
    assert "length 0" in found["log.json:5"]
    assert "does not exist" in found["images/gone.jpg"]
    assert "no position" in found["log.json:3"]
    assert "intrinsics.json" in found["images/00003.jpg"]
    assert [Path(photo.file).name for photo in captures.photos] == ["00004.jpg"]


def test_other_tables_beside_photos_are_no_logs(tmp_path):
    pictures(tmp_path, CAMERAS)
    (tmp_path / "notes.csv").write_text("name,price\na,1\n")
    (tmp_path / "list.json").write_text("[1, 2, 3]")
    assert read_captures(tmp_path).source.kind == "folder of photos and videos"


def test_no_photo_for_any_record(tmp_path):
    (tmp_path / "poses.csv").write_text(table(HEADERS[0]))
    with pytest.raises(CaptureError, match="none of the 5 listed photos"):
        read_captures(tmp_path)
