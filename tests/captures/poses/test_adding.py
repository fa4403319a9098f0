"""Photos added to a calibrated room: posed as well as the others, which stay where they are; what GPS alone gives."""

import logging
import math
from dataclasses import replace

import pytest
import torch

from crowdnerf_lab.captures.bundle import CaptureSet
from crowdnerf_lab.captures.poses import adding
from crowdnerf_lab.captures.poses import structure_from_motion as sfm
from crowdnerf_lab.captures.poses.adding import add_captures
from crowdnerf_lab.captures.poses.calibration import CalibrationError, calibrate
from tests.captures.poses.textured_room import captures_in, walk

pytestmark = pytest.mark.colmap


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> CaptureSet:
    return captures_in(tmp_path_factory.mktemp("room"), [(walk(11), 0)])


def without_gps(captures: CaptureSet) -> CaptureSet:
    bare = tuple(
        capture.model_copy(update={"photos": tuple(photo.model_copy(update={"gps": None}) for photo in capture.photos)})
        for capture in captures.captures
    )
    return replace(captures, captures=bare)


def test_gps_alone_puts_the_room_into_the_world(room, workspace):
    part = replace(room, captures=room.captures[:8])
    scene, report = calibrate(part, poses="colmap", workspace=workspace, progress=False)
    assert len(report.registered) == 8
    assert report.coordinates == "enu"
    assert report.components == (8,)
    assert report.median_position_error < 0.1
    assert report.median_rotation_error < math.radians(2)
    assert report.scale_error < 0.1
    assert (
        "from where GPS says"
        in replace(report, rows=tuple(replace(r, position_error=math.nan) for r in report.rows)).summary()
    )
    for row in report.rows:
        assert row.points > 15
        assert row.reprojection_px < 1
        assert row.component == 0
        assert row.gps_residual_m == pytest.approx(row.position_error, abs=1e-4)
        assert math.isnan(row.heading_residual)
    assert len(scene.train) == 8


def test_added_photos_are_posed_and_the_others_stay(room, workspace, monkeypatch):
    part = replace(room, captures=room.captures[:8])
    scene, report = calibrate(part, poses="colmap", workspace=workspace, progress=False)
    searched = []
    extract = sfm.extract_features
    monkeypatch.setattr(adding, "extract_features", lambda *given: (searched.extend(given[3]), extract(*given))[1])
    extended, extended_report = add_captures(scene, room, report=report, workspace=workspace, progress=False)
    assert searched == [8, 9, 10]
    assert extended_report.registered == tuple(photo.file for photo in room.photos)
    assert torch.allclose(extended.cameras.positions[:8], scene.cameras.positions, atol=1e-5)
    assert all(row.position_error < 0.15 for row in extended_report.rows[8:])
    assert all(row.rotation_error < math.radians(2) for row in extended_report.rows[8:])
    assert extended_report.scale_error == report.scale_error
    again, _ = add_captures(scene, room, report=report, workspace=workspace, progress=False)
    assert searched == [8, 9, 10]
    assert torch.equal(again.cameras.camera_to_world, extended.cameras.camera_to_world)


def test_adding_needs_the_calibration_it_adds_to(room, workspace, tmp_path):
    part = replace(room, captures=room.captures[:8])
    scene, report = calibrate(part, poses="colmap", workspace=workspace, progress=False)
    with pytest.raises(
        CalibrationError, match=r"holds no finished calibration of a part of these 11 photos; calibrate"
    ):
        add_captures(scene, room, report=report, workspace=tmp_path, progress=False)
    stranger = replace(scene, image_names=tuple(f"other/{name}" for name in scene.image_names))
    with pytest.raises(CalibrationError, match="holds 0 of the photos that the workspace knows"):
        add_captures(stranger, room, report=report, workspace=workspace, progress=False)


def test_without_any_position_the_scene_keeps_a_frame_of_its_own(room, workspace, caplog):
    part = without_gps(replace(room, captures=room.captures[:8]))
    with caplog.at_level(logging.WARNING):
        scene, report = calibrate(part, poses="colmap", workspace=workspace, progress=False)
    assert "no photo has a position" in caplog.text
    assert report.coordinates == "arbitrary"
    assert report.align == "none"
    assert math.isnan(report.median_position_error)
    assert scene.origin_wgs84 is None
    centres = scene.cameras.positions
    assert float((centres - centres.mean(0)).norm(dim=-1).mean()) == pytest.approx(1, abs=0.01)
    assert float(scene.cameras.camera_to_world[:, 2, 1].max()) < -0.8


def test_rooms_that_share_nothing_meet_in_the_world_if_gps_says_where(tmp_path):
    rooms = captures_in(tmp_path, [(walk(7), 0), (walk(5, seed=5), 9)])
    scene, report = calibrate(rooms, poses="colmap", workspace=tmp_path / "stages", progress=False)
    assert report.components == (7, 5)
    assert "in 2 parts that share no points" in report.summary()
    assert len(report.registered) == 12
    assert max(row.position_error for row in report.rows) < 0.3
    assert float(scene.cameras.positions[7:, 0].min()) > 90
    far = report.points[:, 0] > 50
    assert bool(far.any())
    assert not bool(far.all())


def test_what_a_killed_process_left_beside_a_database_does_no_harm(room, workspace):
    part = replace(room, captures=room.captures[:8])
    scene, _ = calibrate(part, poses="colmap", workspace=workspace, progress=False)
    for database in workspace.glob("*/matches.db"):
        database.with_name("matches.db-wal").write_bytes(b"half a page")
        database.with_name("matches.db-shm").write_bytes(bytes(32768))
    again, _ = calibrate(part, poses="colmap", workspace=workspace, progress=False)
    assert torch.equal(again.cameras.camera_to_world, scene.cameras.camera_to_world)
