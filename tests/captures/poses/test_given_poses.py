"""The scene of given cameras: whose photos, which are held out, what is left out, and in which frame."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.captures.bundle import CaptureSet, Consent
from crowdnerf_lab.captures.poses.given_poses import camera_of, scene_of_given
from crowdnerf_lab.captures.reading import read_captures
from crowdnerf_lab.scene import SceneError
from tests.captures.formats.known_scene import KnownCamera, known_cameras, pictures
from tests.captures.formats.test_colmap import write_binary


@pytest.fixture
def captures(tmp_path: Path) -> CaptureSet:
    """Ten photos of two UEs."""
    cameras = [
        KnownCamera(f"{'ab'[i % 2]}/{i}.jpg", c.right, c.down, c.forward, c.eye)
        for i, c in enumerate(known_cameras(10))
    ]
    write_binary(tmp_path / "sparse" / "0", cameras)
    pictures(tmp_path / "images", cameras)
    return read_captures(tmp_path)


def changed(captures: CaptureSet, ue: str, **update) -> CaptureSet:
    """The same with the first photo, or with `consent` the whole capture, of a UE changed."""
    found = []
    for capture in captures.captures:
        if capture.ue == ue and "consent" in update:
            capture = capture.model_copy(update=update)
        elif capture.ue == ue:
            first, *rest = capture.photos
            capture = capture.model_copy(update={"photos": (first.model_copy(update=update), *rest)})
        found.append(capture)
    return replace(captures, captures=tuple(found))


def test_ues_times_and_every_eighth_photo(captures):
    scene = scene_of_given(changed(captures, "b", time_s=12.5))
    assert scene.captures == ("a", "b")
    assert [scene.captures[row] for row in scene.capture_of_image.tolist()] == ["a"] * 5 + ["b"] * 5
    assert scene.time_of_image[5] == 12.5
    assert scene.held_out.tolist() == [0, 8]
    assert sorted(scene.train.tolist() + scene.held_out.tolist()) == list(range(10))
    assert len(scene_of_given(captures, held_out_every=0).held_out) == 0


def test_cameras_are_the_given_ones(captures):
    scene = scene_of_given(captures)
    photo = captures.photos[3]
    assert photo.camera is not None
    camera = camera_of(photo.camera, width=photo.width, height=photo.height)
    for name in ("camera_to_world", "focal", "centre", "distortion", "width", "height"):
        assert torch.equal(getattr(scene.cameras[3], name), getattr(camera, name)[0])


def test_what_cannot_be_used_is_left_out_with_a_warning(captures, caplog):
    (captures.root / captures.photos[0].file).write_bytes(b"")
    some = changed(captures, "b", camera=None)
    scene = scene_of_given(some)
    assert len(scene) == 8
    assert "2 of 10 photos are left out" in caplog.text
    alone = scene_of_given(changed(captures, "a", consent=Consent(train=False, publish=True)))
    assert alone.captures == ("b",)


def test_a_picture_of_another_size_than_its_camera_is_left_out(captures):
    assert len(scene_of_given(changed(captures, "a", width=65))) == 9


def test_only_metres_east_north_and_up_have_an_origin(captures):
    placed = replace(captures, origin_wgs84=(48.9, 2.3, 40.0))
    assert scene_of_given(placed).origin_wgs84 is None
    assert scene_of_given(replace(placed, coordinates="enu")).origin_wgs84 == (48.9, 2.3, 40.0)


def test_two_photos_are_too_few(captures):
    few = captures.keeping({photo.file for photo in captures.photos[:2]})
    with pytest.raises(SceneError, match="at least 3 views"):
        scene_of_given(few, held_out_every=0)
