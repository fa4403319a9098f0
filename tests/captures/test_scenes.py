"""Any scene from its folder: the concert and transforms.json through one door, with one way to hold photos out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from crowdnerf_lab.captures import scenes
from crowdnerf_lab.captures.bundle import concert, write_captures
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.poses.calibration import CalibrationError
from crowdnerf_lab.captures.scenes import read_scene


def ngp_folder(root: Path, count: int) -> Path:
    """Photos with poses as instant-ngp lists them, the last two of them without a file."""
    frames = []
    for index in range(count + 2):
        pose = [[1.0, 0, 0, index], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]]
        frames.append({"file_path": f"images/{index:04d}.png", "transform_matrix": pose})
        if index < count:
            (root / "images").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 12), (index, 0, 0)).save(root / "images" / f"{index:04d}.png")
    (root / "transforms.json").write_text(json.dumps({"fl_x": 20.0, "w": 16.0, "h": 12.0, "frames": frames}))
    return root


def test_the_concert_is_read_with_its_own_split():
    scene = read_scene(concert().root, screened=False)
    assert (len(scene), len(scene.train), len(scene.held_out)) == (164, 144, 16)
    assert scene.image_names[int(scene.held_out[0])] == "test/00.png"


def test_shrunk_metadata_posed_clean_photos():
    scene = read_scene(concert().root / "manifest.json", downscale=4, poses="metadata", photos="clean", screened=False)
    assert scene.images[0].shape == (60, 80, 3)
    assert torch.equal(scene.cameras.camera_to_world[0], torch.tensor(concert().photos[0].reported.camera_to_world))


def test_photos_with_poses_are_read_without_the_missing(tmp_path, caplog):
    root = ngp_folder(tmp_path / "fox", 10)
    scene = read_scene(root, held_out_every=4)
    assert scene.name == "fox"
    assert scene.held_out.tolist() == [0, 4, 8]
    assert len(scene) == 10
    assert "2 of 12 listed photos are absent" in caplog.text
    assert read_scene(root / "transforms.json", downscale=2).images[0].shape == (6, 8, 3)


def test_a_crowd_without_reference_views_holds_out_photos_by_name(tmp_path):
    captures = concert()
    few = captures.keeping({photo.file for photo in captures.photos[:9]})
    write_captures(replace(few, views=()), tmp_path)
    scene = read_scene(tmp_path, held_out_every=4, screened=False)
    assert [scene.image_names[row] for row in scene.held_out] == [few.photos[i].file for i in (0, 4, 8)]
    assert len(scene.train) == 6
    assert len(read_scene(tmp_path, held_out_every=0, screened=False).held_out) == 0


def test_what_the_screening_rejects_is_left_out_on_request(tmp_path):
    captures = concert()
    dark = next(photo for photo in captures.photos if photo.truth.spoiled_by == "dark")
    others = [photo.file for photo in captures.photos[:9]]
    write_captures(captures.keeping({dark.file, *others}), tmp_path)
    assert dark.file in read_scene(tmp_path, screened=False).image_names
    assert dark.file not in read_scene(tmp_path).image_names


def test_calibrated_poses_come_from_structure_from_motion(monkeypatch):
    asked = {}

    def calibrate(captures, **options):
        asked.update(options)
        raise CalibrationError("enough")

    monkeypatch.setattr(scenes, "calibrate", calibrate)
    with pytest.raises(CalibrationError, match="enough"):
        read_scene(concert().root, poses="calibrated")
    assert asked == {"poses": "colmap", "photos": "spoiled", "align": "truth"}


def test_what_is_no_scene_is_refused(tmp_path):
    with pytest.raises(CaptureError, match="does not exist"):
        read_scene(tmp_path / "gone")
    with pytest.raises(CaptureError, match=r"neither transforms\.json nor"):
        read_scene(tmp_path)
    with pytest.raises(ValueError, match="downscale is 0"):
        read_scene(tmp_path, downscale=0)
