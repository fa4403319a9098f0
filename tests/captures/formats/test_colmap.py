"""COLMAP models written as its documentation says, binary and text, in all the folders where people keep them."""

import struct
from pathlib import Path

import numpy as np
import pytest

from crowdnerf_lab.captures.bundle import CaptureSet
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import (
    SIZE,
    KnownCamera,
    disagreement,
    known_cameras,
    picture,
    pictures,
    quaternion,
)

LENS = {"focal": (55.0, 55.0), "distortion": (0.05, -0.01, 0.002, -0.001)}
PARAMS = {
    "SIMPLE_PINHOLE": (0, lambda c: (c.focal[0], *c.centre), 0),
    "PINHOLE": (1, lambda c: (*c.focal, *c.centre), 0),
    "SIMPLE_RADIAL": (2, lambda c: (c.focal[0], *c.centre, c.distortion[0]), 1),
    "RADIAL": (3, lambda c: (c.focal[0], *c.centre, *c.distortion[:2]), 2),
    "OPENCV": (4, lambda c: (*c.focal, *c.centre, *c.distortion), 4),
    "FULL_OPENCV": (6, lambda c: (*c.focal, *c.centre, *c.distortion, 0, 0, 0, 0), 4),
}
"""Binary id, parameters in COLMAP's order, and how many distortion terms the model has."""


def lensed(cameras: list[KnownCamera], terms: int) -> list[KnownCamera]:
    distortion = (*LENS["distortion"][:terms], *([0.0] * (4 - terms)))
    return [
        KnownCamera(c.name, c.right, c.down, c.forward, c.eye, LENS["focal"], c.centre, distortion) for c in cameras
    ]


def world_to_camera(camera: KnownCamera) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.linalg.inv(camera.opencv)
    return quaternion(inverse[:3, :3]), inverse[:3, 3]


def write_binary(folder: Path, cameras: list[KnownCamera], *, model: str = "OPENCV", points: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model_id, params, _ = PARAMS[model]
    content = struct.pack("<Q", len(cameras))
    for index, camera in enumerate(cameras):
        values = params(camera)
        content += struct.pack(f"<iiQQ{len(values)}d", index + 1, model_id, *SIZE, *values)
    (folder / "cameras.bin").write_bytes(content)
    content = struct.pack("<Q", len(cameras))
    for index, camera in enumerate(cameras):
        q, t = world_to_camera(camera)
        content += struct.pack("<i4d3di", 10 + index, *q, *t, index + 1) + camera.name.encode() + b"\0"
        content += struct.pack("<Q", points) + struct.pack("<ddq", 1.5, 2.5, -1) * points
    (folder / "images.bin").write_bytes(content)
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", 0))


def write_text(
    folder: Path,
    cameras: list[KnownCamera],
    *,
    points: str = "1.5 2.5 -1 3.5 4.5 -1 5 6 -1 7 8 12\n",
    model: str = "OPENCV",
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    camera_lines, image_lines = "# Camera list\n\n", "\ufeff# Image list with two lines of data per image:\n#\n"
    for index, camera in enumerate(cameras):
        values = " ".join(map(repr, map(float, PARAMS[model][1](camera))))
        camera_lines += f"{index + 1} {model} {SIZE[0]} {SIZE[1]} {values}\n"
        q, t = world_to_camera(camera)
        image_lines += f"{index + 1} {' '.join(map(repr, map(float, [*q, *t])))} {index + 1} {camera.name}\n{points}"
    (folder / "cameras.txt").write_text(camera_lines)
    (folder / "images.txt").write_text(image_lines, encoding="utf-8")


def problems(captures: CaptureSet) -> dict[str, str]:
    return {left.file: left.problem for left in captures.source.left_out}


@pytest.mark.parametrize("write", [write_binary, write_text])
@pytest.mark.parametrize("model", PARAMS)
def test_points_fall_where_they_should_in_every_pinhole_model(tmp_path, write, model):
    cameras = lensed(known_cameras(), PARAMS[model][2])
    write(tmp_path / "sparse" / "0", cameras, model=model)
    pictures(tmp_path / "images", cameras)
    captures = read_captures(tmp_path)
    assert "COLMAP" in captures.source.kind
    assert captures.coordinates == "arbitrary"
    assert disagreement(captures, cameras) < 0.01


def test_camera_to_world_in_place_of_world_to_camera_would_show(tmp_path):
    cameras = lensed(known_cameras(), 4)
    turned = [KnownCamera(c.name, *np.linalg.inv(c.opencv)[:3].T, c.focal, c.centre, c.distortion) for c in cameras]
    write_binary(tmp_path / "sparse" / "0", turned)
    pictures(tmp_path / "images", cameras)
    assert disagreement(read_captures(tmp_path), cameras) > 1


@pytest.mark.parametrize(
    ("model", "images", "given"),
    [
        ("sparse/0", "images", "sparse/0"),
        ("sparse/0", "images", "sparse/0/images.bin"),
        ("sparse", "input", "."),
        ("colmap/sparse/0", "images", "."),
        ("dense/sparse", "dense/images", "."),
        ("dense/sparse", "dense/images", "dense"),
        (".", "images", "."),
        (".", ".", "."),
        ("sparse/0", "Images", "."),
    ],
)
def test_models_and_images_are_found_where_people_keep_them(tmp_path, model, images, given):
    cameras = lensed(known_cameras(), 4)
    write_binary(tmp_path / "scene" / model, cameras)
    pictures(tmp_path / "scene" / images, cameras)
    assert disagreement(read_captures(tmp_path / "scene" / given), cameras) < 0.01


def test_an_unpacked_archives_folder_of_one_folder_is_looked_into(tmp_path):
    cameras = lensed(known_cameras(), 4)
    write_binary(tmp_path / "upload" / "scene" / "sparse" / "0", cameras)
    pictures(tmp_path / "upload" / "scene" / "images", cameras)
    (tmp_path / "__MACOSX").mkdir()
    assert disagreement(read_captures(tmp_path), cameras) < 0.01


def test_shrunk_pictures_scale_the_lens(tmp_path):
    cameras = lensed(known_cameras(), 4)
    write_text(tmp_path / "sparse" / "0", cameras)
    pictures(tmp_path / "images_2", cameras, (SIZE[0] // 2, SIZE[1] // 2))
    assert disagreement(read_captures(tmp_path), cameras, scale=0.5) < 0.01


@pytest.mark.parametrize("points", ["\n", "", "\n# a comment\n"])
def test_text_without_points_and_with_comments(tmp_path, points):
    cameras = lensed(known_cameras(suffix=" photo ä.JPG"), 4)
    write_text(tmp_path / "sparse" / "0", cameras, points=points)
    pictures(tmp_path / "images", cameras)
    assert disagreement(read_captures(tmp_path), cameras) < 0.01


def test_zero_points_in_binary_and_one_contributor_a_folder(tmp_path):
    cameras = lensed(known_cameras(), 4)
    filed = [
        KnownCamera(f"phone {i % 2}/{c.name}", c.right, c.down, c.forward, c.eye, c.focal, c.centre, c.distortion)
        for i, c in enumerate(cameras)
    ]
    write_binary(tmp_path / "sparse" / "0", filed, points=0)
    pictures(tmp_path / "images", filed)
    captures = read_captures(tmp_path)
    assert disagreement(captures, cameras) < 0.01
    assert {capture.ue: len(capture.photos) for capture in captures.captures} == {"phone-0": 3, "phone-1": 2}


def test_what_cannot_be_used_is_left_out_with_a_reason(tmp_path):
    cameras = lensed(known_cameras(6), 4)
    write_text(tmp_path / "sparse" / "0", cameras)
    write_binary(tmp_path / "sparse" / "1", cameras[:2])
    pictures(tmp_path / "images", cameras[1:])
    lines = (tmp_path / "sparse" / "0" / "cameras.txt").read_text().splitlines()
    lines[3] = lines[3].replace("OPENCV", "OPENCV_FISHEYE")
    lines[4] = "3 PINHOLE wide 48 1 1 1 1"
    lines[5] = lines[5].replace("55.0", "nan")
    (tmp_path / "sparse" / "0" / "cameras.txt").write_text("\n".join(lines))
    captures = read_captures(tmp_path)
    assert [Path(photo.file).name for photo in captures.photos] == ["00004.jpg", "00005.jpg"]
    found = problems(captures)
    assert "does not exist" in found["images/00000.jpg"]
    assert "undistort" in found["images/00001.jpg"]
    assert "camera 3, which no line describes" in found["images/00002.jpg"]
    assert "must be finite" in found["images/00003.jpg"]
    assert "line 5" in found["cameras.txt:5"]
    assert "not joined" in found["sparse/1"]


def test_cut_and_foreign_files_are_refused(tmp_path):
    cameras = lensed(known_cameras(), 4)
    pictures(tmp_path / "images", cameras)
    write_binary(tmp_path / "sparse" / "0", cameras)
    whole = (tmp_path / "sparse" / "0" / "images.bin").read_bytes()
    for damaged in (whole[:100], whole[:-20], b"", struct.pack("<Q", 1 << 60) + whole[8:], b"\xff" * 200):
        (tmp_path / "sparse" / "0" / "images.bin").write_bytes(damaged)
        with pytest.raises(CaptureError, match=r"images\.bin is cut short"):
            read_captures(tmp_path)


def test_names_that_leave_the_folder_are_refused(tmp_path):
    cameras = known_cameras(3, suffix="")
    away = [KnownCamera(f"../../{c.name}", c.right, c.down, c.forward, c.eye) for c in cameras]
    write_binary(tmp_path / "scene" / "sparse" / "0", away)
    for camera in cameras:
        picture(tmp_path / camera.name)
    with pytest.raises(CaptureError, match="does not stay inside"):
        read_captures(tmp_path / "scene")
