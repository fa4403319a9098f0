"""poses_bounds.npy built as LLFF documents it: columns down, right, backward, then height, width, focal length."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.reading import read_captures
from tests.captures.formats.known_scene import SIZE, KnownCamera, disagreement, known_cameras, pictures

CAMERAS = known_cameras(6, focal=(55.0, 55.0), centre=(SIZE[0] / 2, SIZE[1] / 2), suffix=".JPG")


def llff_axes(camera: KnownCamera) -> np.ndarray:
    return np.column_stack([camera.down, camera.right, -camera.forward])


def write(root: Path, cameras: list[KnownCamera], *, axes=llff_axes, size=SIZE) -> Path:
    rows = []
    for camera in cameras:
        lens = np.array([[size[1]], [size[0]], [camera.focal[0] * size[0] / SIZE[0]]])
        matrix = np.hstack([axes(camera), camera.eye[:, None], lens])
        rows.append([*matrix.ravel(), 1.0, 9.0])
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "poses_bounds.npy", np.array(rows))
    return root


@pytest.mark.parametrize("given", ["", "poses_bounds.npy"])
def test_points_fall_where_they_should(tmp_path, given):
    pictures(write(tmp_path, CAMERAS) / "images", CAMERAS)
    captures = read_captures(tmp_path / given)
    assert (captures.source.kind, captures.coordinates) == ("LLFF", "arbitrary")
    assert disagreement(captures, CAMERAS) < 0.01


def test_opengl_columns_would_show(tmp_path):
    wrong = write(tmp_path, CAMERAS, axes=lambda c: np.column_stack([c.right, -c.down, -c.forward]))
    pictures(wrong / "images", CAMERAS)
    assert disagreement(read_captures(tmp_path), CAMERAS) > 1


def test_shrunk_images_alone(tmp_path):
    root = write(tmp_path, CAMERAS, size=(8 * SIZE[0], 8 * SIZE[1]))
    pictures(root / "images_8", CAMERAS)
    assert disagreement(read_captures(root), CAMERAS) < 0.01


def test_a_photo_too_many_is_no_guess(tmp_path):
    pictures(write(tmp_path, CAMERAS[:5]) / "images", CAMERAS)
    with pytest.raises(CaptureError, match=r"5 poses and no folder as many photos \(6 in images"):
        read_captures(tmp_path)


def test_other_arrays_and_pickles_are_refused(tmp_path):
    pictures(tmp_path / "images", CAMERAS)
    file = tmp_path / "poses_bounds.npy"
    huge = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 17), }".ljust(128)
    objects = np.array([[{}] * 17], dtype=object)
    for content in (b"", b"no array", huge, pickle.dumps(objects)):
        file.write_bytes(content)
        with pytest.raises(CaptureError, match="no array of numbers"):
            read_captures(tmp_path)
    np.save(file, objects)
    with pytest.raises(CaptureError, match="no array of numbers"):
        read_captures(tmp_path)
    np.save(file, np.zeros((6, 12)))
    with pytest.raises(CaptureError, match="not 17 numbers"):
        read_captures(tmp_path)


def test_rows_that_are_no_poses_are_left_out(tmp_path):
    pictures(write(tmp_path, CAMERAS) / "images", CAMERAS)
    rows = np.load(tmp_path / "poses_bounds.npy")
    rows[1, :3] = np.nan
    rows[2, 14] = -3.0
    np.save(tmp_path / "poses_bounds.npy", rows)
    captures = read_captures(tmp_path)
    assert [left.file for left in captures.source.left_out] == ["images/00001.JPG", "images/00002.JPG"]
    assert len(captures.photos) == 4
