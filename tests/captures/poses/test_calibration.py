"""Calibration: which photo gets which camera, what the scene holds, structure from motion on part of the concert."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from crowdnerf_lab.captures.bundle import CaptureSet, Consent, GivenCamera, GpsFix, Photo, concert
from crowdnerf_lab.captures.poses import structure_from_motion as sfm
from crowdnerf_lab.captures.poses.calibration import REFERENCE, CalibrationError, calibrate
from crowdnerf_lab.captures.screening.screen import screen
from crowdnerf_lab.scene import check_trainable


def edited(captures: CaptureSet, edit: Callable[[Photo], Photo]) -> CaptureSet:
    """The captures with every photo passed through `edit`."""
    return replace(
        captures,
        captures=tuple(
            capture.model_copy(update={"photos": tuple(edit(photo) for photo in capture.photos)})
            for capture in captures.captures
        ),
    )


def some(captures: CaptureSet, count: int) -> CaptureSet:
    return replace(captures, captures=captures.captures[:count], views=captures.views[:2])


@pytest.mark.row("S62")
def test_the_phones_metadata_gives_every_photo_a_rough_pose():
    captures = concert()
    scene, report = calibrate(captures)
    assert len(report.registered) == 144
    assert 4 < report.median_position_error < 8
    assert math.radians(3) < report.median_rotation_error < math.radians(7)
    assert torch.equal(scene.cameras.camera_to_world[5], torch.tensor(captures.photos[5].reported.camera_to_world))
    assert len(scene.captures) == 49
    assert scene.origin_wgs84 == captures.origin_wgs84
    check_trainable(scene)


def test_truth_is_exact_and_views_are_held_out():
    captures = concert()
    scene, report = calibrate(captures, poses="truth")
    assert report.median_position_error == 0
    assert report.median_rotation_error < 1e-3
    assert scene.train.tolist() == list(range(144))
    names = [scene.image_names[row] for row in scene.held_out]
    assert names == [view.file for view in captures.views if view.split == "test"]
    assert len(names) == 16
    assert len(scene) == 164
    assert [scene.image_names[row] for row in range(160, 164)] == [
        view.file for view in captures.views if view.split == "test_beyond"
    ]
    view = captures.views[0]
    assert torch.equal(scene.cameras.camera_to_world[144], torch.tensor(view.camera_to_world))
    assert scene.cameras.focal[144].tolist() == pytest.approx([view.focal_px] * 2)
    assert scene.captures[int(scene.capture_of_image[150])] == REFERENCE
    assert scene.captures[int(scene.capture_of_image[4])] == "ue01"
    portrait = next(row for row, photo in enumerate(captures.photos) if photo.height > photo.width)
    assert scene.images[portrait].shape == (320, 240, 3)


def test_clean_photos_take_the_place_of_spoiled_ones():
    captures = some(concert(), 2)
    spoiled, _ = calibrate(captures, poses="truth")
    clean, _ = calibrate(captures, poses="truth", photos="clean")
    assert clean.image_names == spoiled.image_names
    assert not torch.equal(clean.images[0], spoiled.images[0])
    twin = Image.open(captures.path_of(captures.photos[0].truth.clean_file))
    assert tuple(clean.images[0][0, 0].tolist()) == twin.getpixel((0, 0))


def test_the_principal_point_and_the_time_are_the_photos_own():
    captures = edited(some(concert(), 2), lambda photo: photo.model_copy(update={"centre_px": (150.0, 110.0)}))
    captures = edited(captures, lambda photo: photo.model_copy(update={"time_s": 2.5}))
    scene, _ = calibrate(captures)
    assert scene.cameras.centre[0].tolist() == [150, 110]
    assert scene.cameras.centre[-1].tolist() == [160, 120]
    assert scene.time_of_image[0] == 2.5


def test_photos_that_cannot_be_used_are_reported_and_the_rest_goes_on(tmp_path):
    captures = some(concert(), 4)
    first, second, third, fourth, fifth = captures.photos[:5]
    changes = {
        first.file: {"reported": None},
        second.file: {"focal_px": None},
        third.file: {"width": 100},
        fifth.file: {"file": "train/gone.jpg"},
    }
    captures = edited(captures, lambda photo: photo.model_copy(update=changes.get(photo.file, {})))
    refusing = captures.captures[3].model_copy(update={"consent": Consent(train=False, publish=True)})
    captures = replace(captures, captures=(*captures.captures[:3], refusing))
    scene, report = calibrate(captures)
    problems = {row.photo: row.problem for row in report.rows if not row.registered}
    assert "has no reported pose" in problems[first.file]
    assert "has no focal_px" in problems[second.file]
    assert "its manifest says 100x240" in problems[third.file]
    assert "does not exist" in problems["train/gone.jpg"]
    assert "ue03 does not consent" in problems[refusing.photos[0].file]
    assert len(problems) == 7
    assert report.unregistered == tuple(problems)
    assert len(scene.train) == 5
    assert fourth.file in report.registered


def test_two_photos_are_too_few():
    captures = some(concert(), 1).keeping({photo.file for photo in concert().photos[:2]})
    for poses in ("metadata", "truth", "colmap"):
        with pytest.raises(CalibrationError, match=r"concert: 2 photos can be posed, at least 3 .*; add photos"):
            calibrate(captures, poses=poses)


def test_no_photos_at_all():
    with pytest.raises(CalibrationError, match="0 photos can be posed"):
        calibrate(replace(concert(), captures=()))


def test_photos_without_truth_say_so():
    captures = edited(some(concert(), 2), lambda photo: photo.model_copy(update={"truth": None}))
    with pytest.raises(CalibrationError, match=r"has no truth.*choose other poses"):
        calibrate(captures, poses="truth")
    _, report = calibrate(captures)
    assert math.isnan(report.median_position_error)
    assert "median error" not in report.summary()


def test_a_heading_and_a_place_make_a_level_camera():
    captures = some(concert(), 2)
    exact = {photo.file: photo.reported.camera_to_world for photo in captures.photos}

    def without_attitude(photo: Photo) -> Photo:
        rows = photo.reported.camera_to_world
        heading = math.atan2(rows[0][2], rows[1][2]) % (2 * math.pi)
        gps = GpsFix(position=tuple(row[3] for row in rows), heading=heading)
        return photo.model_copy(update={"reported": None, "gps": gps})

    scene, report = calibrate(edited(captures, without_attitude))
    for row, name in enumerate(report.registered):
        pose, full = scene.cameras.camera_to_world[row], torch.tensor(exact[name])
        assert torch.allclose(pose[:, 3], full[:, 3])
        assert float(torch.dot(pose[:2, 2], full[:2, 2]) / full[:2, 2].norm()) == pytest.approx(1, abs=1e-5)
        assert pose[2].tolist()[:3] == [0, -1, 0]
        assert float(torch.linalg.det(pose[:, :3])) == pytest.approx(1)
    assert all(row.gps_residual_m < 1e-4 and abs(row.heading_residual) < 1e-5 for row in report.rows)


def test_cameras_of_another_tool_are_taken_as_they_are():
    captures = some(concert(), 2)
    lens = (0.05, -0.01, 0.001, 0.002)

    def calibrated(photo: Photo) -> Photo:
        camera = GivenCamera(
            camera_to_world=photo.truth.camera_to_world,
            focal_px=(photo.focal_px, photo.focal_px + 1),
            centre_px=(150.0, 118.0),
            distortion=lens,
        )
        return photo.model_copy(update={"camera": camera if photo.file != captures.photos[1].file else None})

    scene, report = calibrate(edited(captures, calibrated), poses="given")
    assert len(report.registered) == len(captures.photos) - 1
    assert report.median_position_error == 0
    assert report.rows[1].problem == f"{captures.photos[1].file} has no camera of another tool"
    assert scene.cameras.distortion[0].tolist() == pytest.approx(lens)
    with pytest.raises(CalibrationError, match="none of the 6 photos has a camera"):
        calibrate(captures, poses="given")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("colmap")


@pytest.fixture(scope="module")
def floor() -> CaptureSet:
    """Five UEs that stand next to each other on the floor, screened."""
    captures = concert()
    neighbours = [capture for capture in captures.captures if capture.ue in ("ue18", "ue20", "ue22", "ue24", "ue28")]
    return screen(replace(captures, captures=tuple(neighbours)), progress=False)[0]


@pytest.mark.colmap
@pytest.mark.row("S56", "S64")
def test_structure_from_motion_finds_the_cameras(floor, workspace):
    scene, report = calibrate(floor, poses="colmap", align="truth", workspace=workspace, progress=False)
    assert len(report.registered) >= len(floor.photos) - 2
    assert report.median_position_error < 0.5
    assert report.median_rotation_error < math.radians(2)
    assert report.reprojection_px < 1.5
    assert len(report.points) > 300
    assert report.colours.shape == report.points.shape
    depths = (report.points - scene.cameras.positions[0]) @ scene.cameras.forward[0]
    assert float((depths > 0).float().mean()) > 0.99
    check_trainable(scene)
    focals = {(int(scene.capture_of_image[row]), float(scene.cameras.focal[row, 0])) for row in scene.train}
    assert len(focals) == 5
    assert report.summary().startswith(f"{len(report.registered)} of {len(floor.photos)} photos posed by colmap")


@pytest.mark.colmap
def test_metadata_puts_the_model_into_the_world(floor, workspace):
    raw = calibrate(floor)[1]
    _, report = calibrate(floor, poses="colmap", workspace=workspace, progress=False)
    assert report.median_position_error < raw.median_position_error
    assert report.median_rotation_error < math.radians(8)


@pytest.mark.colmap
def test_finished_stages_are_taken_up_again(floor, workspace, monkeypatch):
    first = calibrate(floor, poses="colmap", align="truth", workspace=workspace, progress=False)[0]
    for stage in ("_extract", "_match", "_map"):
        monkeypatch.setattr(sfm, stage, None)
    again = calibrate(floor, poses="colmap", align="truth", workspace=workspace, progress=False)[0]
    assert torch.equal(again.cameras.camera_to_world, first.cameras.camera_to_world)
    folder = next(workspace.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == ["features.db", "matches.db", "model", "pictures"]


@pytest.mark.colmap
def test_other_photos_do_not_meet_old_stages(floor, workspace, monkeypatch):
    calibrate(floor, poses="colmap", workspace=workspace, progress=False)

    def started_anew(*_):
        raise sfm.MotionError("started anew")

    monkeypatch.setattr(sfm, "_extract", started_anew)
    fewer = floor.keeping({photo.file for photo in floor.photos[1:]})
    with pytest.raises(CalibrationError, match="started anew"):
        calibrate(fewer, poses="colmap", workspace=workspace, progress=False)


@pytest.mark.colmap
def test_pictures_that_share_nothing_are_refused_with_advice(tmp_path):
    captures = some(concert(), 1)
    generator = torch.Generator().manual_seed(0)
    for photo in captures.photos:
        path = tmp_path / photo.file
        path.parent.mkdir(exist_ok=True)
        noise = torch.randint(0, 255, (photo.height, photo.width, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(path, "PNG")
    captures = replace(captures, root=tmp_path, views=())
    with pytest.raises(CalibrationError, match=r"only 0 of 3 photos could be posed.*add photos taken between"):
        calibrate(captures, poses="colmap", progress=False)


@pytest.mark.colmap
def test_poses_turned_away_from_the_phones_attitude_are_taken_for_wrong(floor, workspace):
    victim = floor.photos[0]
    turned = torch.tensor(victim.reported.camera_to_world)
    turned[:, :3] = turned[:, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    reported = victim.reported.model_copy(update={"camera_to_world": tuple(map(tuple, turned.tolist()))})
    captures = edited(
        floor, lambda photo: photo.model_copy(update={"reported": reported}) if photo.file == victim.file else photo
    )
    _, report = calibrate(captures, poses="colmap", align="truth", workspace=workspace, progress=False)
    assert report.rows[0].photo == victim.file
    assert "degrees from what the phone reports" in report.rows[0].problem
    assert sum("degrees" in row.problem for row in report.rows) == 1
