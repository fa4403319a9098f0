"""transforms.json: each dialect built to its convention, projections that fail with a wrong axis, broken files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crowdnerf_lab.cameras import look_at, project
from crowdnerf_lab.captures.axes import opencv_to_opengl
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.exporting import write_transforms
from crowdnerf_lab.captures.poses.given_poses import scene_of_given
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.scene import PosedScene, SceneError

WIDTH, HEIGHT = 32, 24


def opengl_pose(x: float) -> list[list[float]]:
    """A camera at (x, 0, 0) that looks along +y with z up; OpenGL: the columns are right, up, backward."""
    return [[1.0, 0.0, 0.0, x], [0.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


def frames(count: int, *, folder: str = "images", suffix: str = ".png") -> list[dict]:
    return [{"file_path": f"{folder}/{i:03d}{suffix}", "transform_matrix": opengl_pose(float(i))} for i in range(count)]


def picture(path: Path, *, size=(WIDTH, HEIGHT), colour=(200, 100, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "PNG")


def folder_with(root: Path, document: dict, *, name: str = "transforms.json", size=(WIDTH, HEIGHT)) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(document))
    for frame in document["frames"]:
        file = frame["file_path"]
        picture(root / (file if file.endswith(".png") else file + ".png"), size=size)
    return root


def pixel_of(scene: PosedScene, index: int, point: tuple[float, float, float]) -> tuple[list[float], float]:
    pixel, depth = project(scene.cameras[index], torch.tensor(point))
    return pixel.tolist(), float(depth)


def scene_at(path: Path, *, held_out_every: int = 8) -> PosedScene:
    return scene_of_given(read_captures(path), held_out_every=held_out_every)


def test_nerfstudio_with_distortion_projects_where_its_convention_says(tmp_path):
    lens = {"fl_x": 40.0, "fl_y": 30.0, "cx": 15.0, "cy": 13.0, "w": WIDTH, "h": HEIGHT}
    distortion = {"k1": 0.1, "k2": 0.01, "p1": 0.003, "p2": -0.002}
    document = {"camera_model": "OPENCV", **lens, **distortion, "frames": frames(4)}
    captures = read_captures(folder_with(tmp_path, document))
    assert captures.source.left_out == ()
    scene = scene_of_given(captures)
    assert len(scene) == 4
    # One metre right and half a metre up at five metres: x = 0.2, y = -0.1 in OpenCV's image plane.
    x, y = 0.2, -0.1
    r2 = x * x + y * y
    radial = 1 + 0.1 * r2 + 0.01 * r2 * r2
    u = 15 + 40 * (x * radial + 2 * 0.003 * x * y - 0.002 * (r2 + 2 * x * x))
    v = 13 + 30 * (y * radial + 0.003 * (r2 + 2 * y * y) + 2 * -0.002 * x * y)
    pixel, depth = pixel_of(scene, 0, (1.0, 5.0, 0.5))
    assert pixel == pytest.approx([u, v], abs=1e-4)
    assert depth == pytest.approx(5)


def test_a_point_to_the_right_and_above_lands_right_and_above(tmp_path):
    scene = scene_at(folder_with(tmp_path, {"fl_x": 40.0, "frames": frames(4)}))
    (u, v), depth = pixel_of(scene, 2, (3.0, 8.0, 1.0))
    assert u > WIDTH / 2
    assert v < HEIGHT / 2
    assert depth == pytest.approx(8)
    assert pixel_of(scene, 2, (2.0, -8.0, 0.0))[1] < 0


def test_instant_ngp_keeps_measured_focals_over_angles(tmp_path):
    document = {
        "camera_angle_x": 1.0,
        "camera_angle_y": 2.0,
        "fl_x": 41.0,
        "fl_y": 42.0,
        "w": float(WIDTH),
        "h": float(HEIGHT),
        "aabb_scale": 4,
        "frames": [{**frame, "sharpness": 31.7} for frame in frames(4)],
    }
    scene = scene_at(folder_with(tmp_path, document))
    assert scene.cameras.focal[0].tolist() == [41.0, 42.0]
    assert scene.cameras.centre[0].tolist() == [WIDTH / 2, HEIGHT / 2]


def test_angles_alone_give_the_focal(tmp_path):
    angle = 2 * math.atan(0.5)
    scene = scene_at(folder_with(tmp_path, {"camera_angle_x": angle, "frames": frames(4)}))
    assert scene.cameras.focal[0].tolist() == pytest.approx([WIDTH, WIDTH])
    both = {"camera_angle_x": angle, "camera_angle_y": angle, "frames": frames(4)}
    scene = scene_at(folder_with(tmp_path / "both", both))
    assert scene.cameras.focal[0].tolist() == pytest.approx([WIDTH, HEIGHT])


def test_a_frames_own_lens_wins(tmp_path):
    document = {"fl_x": 40.0, "fl_y": 44.0, "k1": 0.5, "frames": frames(4)}
    document["frames"][1] |= {"fl_x": 60.0, "cx": 10.0, "k1": 0.0}
    document["frames"][2] |= {"camera_angle_x": 2 * math.atan(0.5)}
    scene = scene_at(folder_with(tmp_path, document))
    assert scene.cameras.focal.tolist() == [[40, 44], [60, 60], pytest.approx([32, 32]), [40, 44]]
    assert scene.cameras.centre[1].tolist() == [10, 12]
    assert scene.cameras.distortion[:, 0].tolist() == [0.5, 0.0, 0.5, 0.5]


def test_smaller_pictures_than_the_lens_was_measured_for(tmp_path):
    document = {"fl_x": 80.0, "fl_y": 70.0, "cx": 33.0, "w": 2 * WIDTH, "h": 2 * HEIGHT, "frames": frames(4)}
    scene = scene_at(folder_with(tmp_path, document))
    assert scene.cameras.focal[0].tolist() == [40, 35]
    assert scene.cameras.centre[0].tolist() == [16.5, 12]
    assert (int(scene.cameras.width[0]), int(scene.cameras.height[0])) == (WIDTH, HEIGHT)


def test_every_eighth_photo_by_name_is_held_out(tmp_path):
    document = {"fl_x": 40.0, "frames": frames(17)[::-1]}
    scene = scene_at(folder_with(tmp_path, document))
    assert list(scene.image_names) == [f"images/{i:03d}.png" for i in range(17)]
    assert scene.cameras.positions[:, 0].tolist() == list(range(17))
    assert scene.held_out.tolist() == [0, 8, 16]
    assert sorted(scene.train.tolist() + scene.held_out.tolist()) == list(range(17))
    assert scene_at(tmp_path, held_out_every=5).held_out.tolist() == [0, 5, 10, 15]
    assert scene_at(tmp_path, held_out_every=0).held_out.tolist() == []


def test_nerfstudios_own_split_is_kept(tmp_path):
    document = {"fl_x": 40.0, "frames": frames(6)}
    names = [frame["file_path"] for frame in document["frames"]]
    document |= {"train_filenames": names[:3], "val_filenames": names[3:4], "test_filenames": names[4:5]}
    scene = scene_at(folder_with(tmp_path, document))
    assert scene.train.tolist() == [0, 1, 2]
    assert scene.held_out.tolist() == [4]


def blender_folder(root: Path, splits: dict[str, int]) -> Path:
    for split, count in splits.items():
        listed = frames(count, folder=f"./{split}", suffix="")
        folder_with(root, {"camera_angle_x": 0.7, "frames": listed}, name=f"transforms_{split}.json")
    return root


def test_blenders_split_pictures_without_extension_and_white_background(tmp_path):
    root = blender_folder(tmp_path, {"train": 4, "val": 2, "test": 3})
    rgba = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    rgba[:, : WIDTH // 2] = 10, 20, 30, 255
    Image.fromarray(rgba).save(root / "train" / "000.png")
    scene = scene_at(root)
    assert len(scene) == 9
    names = scene.image_names
    assert [names[row] for row in scene.train] == [f"train/{i:03d}.png" for i in range(4)]
    assert [names[row] for row in scene.held_out] == [f"test/{i:03d}.png" for i in range(3)]
    first = scene.images[names.index("train/000.png")]
    assert first[0, 0].tolist() == [10, 20, 30]
    assert first[0, -1].tolist() == [255, 255, 255]
    assert scene.cameras.focal[0, 0] == pytest.approx(WIDTH / 2 / math.tan(0.35))


def test_blender_without_test_photos_holds_out_its_validation(tmp_path):
    scene = scene_at(blender_folder(tmp_path, {"train": 4, "val": 2}))
    assert [scene.image_names[row] for row in scene.held_out] == ["val/000.png", "val/001.png"]


def test_cut_out_photos_give_the_box_of_their_object(tmp_path):
    azimuth = torch.arange(8) * math.pi / 4
    eyes = torch.stack([azimuth.cos(), azimuth.sin(), 0.2 + 0.8 * (torch.arange(8) % 2)], dim=-1)
    poses = look_at(4 * torch.nn.functional.normalize(eyes, dim=-1), torch.zeros(8, 3))
    listed = [
        {"file_path": f"./train/{i}", "transform_matrix": [*opencv_to_opengl(pose).tolist(), [0, 0, 0, 1]]}
        for i, pose in enumerate(poses)
    ]
    root = folder_with(tmp_path, {"camera_angle_x": 0.7, "frames": listed}, name="transforms_train.json", size=(40, 40))
    whole = scene_at(root)
    rgba = np.zeros((40, 40, 4), dtype=np.uint8)
    rgba[12:28, 12:28] = 200, 100, 50, 255
    for i in range(8):
        Image.fromarray(rgba).save(root / "train" / f"{i}.png")
    scene = scene_at(root)
    # Sixteen of forty pixels at a distance of 4, which spans 2.92: a half size of 0.58, or a little more.
    assert scene.bounds.half_size.min() > 0.5
    assert scene.bounds.half_size.max() < 1.0
    assert (scene.bounds.half_size < whole.bounds.half_size).all()
    Image.fromarray(rgba[..., :3]).save(root / "train" / "1.png")
    mixed = scene_at(root)
    assert torch.equal(mixed.bounds.half_size, whole.bounds.half_size)


def test_absent_and_damaged_photos_are_reported_and_the_rest_goes_on(tmp_path, caplog):
    root = folder_with(tmp_path, {"fl_x": 40.0, "frames": frames(9)})
    (root / "images" / "003.png").unlink()
    whole = (root / "images" / "005.png").read_bytes()
    (root / "images" / "005.png").write_bytes(whole[:40])
    (root / "images" / "006.png").write_bytes(b"")
    captures = read_captures(root)
    scene = scene_of_given(captures)
    assert len(scene) == 6
    problems = {left.file: left.problem for left in captures.source.left_out}
    assert "does not exist" in problems["images/003.png"]
    assert "images/006.png is empty" in problems["images/006.png"]
    assert "3 of 9 listed photos are absent or cannot be used" in caplog.text
    assert scene.held_out.tolist() == [0]


def test_what_is_written_is_read_again(tmp_path):
    lens = {"fl_x": 40.0, "fl_y": 41.0, "cx": 15.5, "cy": 12.5, "k1": 0.1, "p2": -0.01}
    document = {**lens, "frames": frames(7)}
    scene = scene_at(folder_with(tmp_path / "given", document))
    scene = scene.with_split([1, 2, 3, 4], [0, 6])
    path = write_transforms(scene, tmp_path / "written")
    again = scene_at(path)
    assert again.train.tolist() == [1, 2, 3, 4]
    assert again.held_out.tolist() == [0, 6]
    for name in ("camera_to_world", "focal", "centre", "distortion", "width", "height"):
        assert torch.equal(getattr(again.cameras, name), getattr(scene.cameras, name))
    assert all(torch.equal(a, b) for a, b in zip(again.images, scene.images, strict=True))


def refusal(root: Path) -> str:
    with pytest.raises(CaptureError) as caught:
        read_captures(root)
    return str(caught.value)


def document_with(**changes) -> dict:
    document = {"fl_x": 40.0, "frames": frames(4)}
    document["frames"][2] |= changes
    return document


def scaled(pose: list[list[float]], factor: float) -> list[list[float]]:
    return [[factor * value for value in row[:3]] + row[3:] for row in pose]


BROKEN = {
    "NaN": (document_with(transform_matrix=scaled(opengl_pose(0.0), math.nan)), "finite number"),
    "scaled": (document_with(transform_matrix=scaled(opengl_pose(0.0), 2.0)), "no rotation"),
    "mirrored": (document_with(transform_matrix=scaled(opengl_pose(0.0), -1.0)), "no rotation"),
    "two rows": (document_with(transform_matrix=opengl_pose(0.0)[:2]), "at least 3"),
    "fisheye": (document_with(camera_model="OPENCV_FISHEYE"), "undistort"),
    "negative focal": (document_with(fl_x=-3.0), "greater than 0"),
    "flat angle": (document_with(camera_angle_x=0.0), "greater than 0"),
    "other proportions": (document_with(w=HEIGHT, h=WIDTH), "EXIF orientation"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_frames_are_left_out_and_named_with_a_remedy(tmp_path, name):
    document, words = BROKEN[name]
    captures = read_captures(folder_with(tmp_path, document))
    assert [photo.file for photo in captures.photos] == ["images/000.png", "images/001.png", "images/003.png"]
    (left,) = captures.source.left_out
    assert words in left.problem
    assert "images/002.png" in left.problem
    assert str(tmp_path / "transforms.json") in left.problem


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_of_broken_frames_alone_is_refused(tmp_path, name):
    document, words = BROKEN[name]
    folder_with(tmp_path, document)
    (tmp_path / "transforms.json").write_text(json.dumps(document | {"frames": document["frames"][2:3]}))
    message = refusal(tmp_path)
    assert words in message
    assert "images/002.png" in message
    assert str(tmp_path / "transforms.json") in message


def test_names_given_twice(tmp_path):
    document = document_with(file_path="./images/001.png")
    assert "images/001.png is named by two frames" in refusal(folder_with(tmp_path, document))


@pytest.mark.parametrize("name", ["../images/001.png", "/etc/hostname", "a\x00"])
def test_names_that_leave_the_folder(tmp_path, name):
    root = folder_with(tmp_path, {"fl_x": 40.0, "frames": frames(4)})
    (root / "transforms.json").write_text(json.dumps(document_with(file_path=name)))
    assert str(root / "transforms.json") in refusal(root)


def test_no_focal_length_anywhere(tmp_path):
    assert "camera_angle_x" in refusal(folder_with(tmp_path, {"frames": frames(4)}))


def test_wrong_json(tmp_path):
    (tmp_path / "transforms.json").write_text("{'frames': []}")
    assert "is not JSON" in refusal(tmp_path)


def test_a_file_without_frames(tmp_path):
    (tmp_path / "transforms.json").write_text("{}")
    assert "frames: Field required" in refusal(tmp_path)
    (tmp_path / "transforms.json").write_text('{"frames": []}')
    assert "none of the 0 listed photos" in refusal(tmp_path)


def test_a_folder_without_any(tmp_path):
    assert "neither transforms.json nor transforms_train.json" in refusal(tmp_path)


def test_all_photos_gone(tmp_path):
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 40.0, "frames": frames(4)}))
    assert "none of the 4 listed photos" in refusal(tmp_path)


def test_two_photos_are_too_few(tmp_path):
    root = folder_with(tmp_path, {"fl_x": 40.0, "frames": frames(2)})
    with pytest.raises(SceneError, match="at least 3 views"):
        scene_at(root, held_out_every=0)
