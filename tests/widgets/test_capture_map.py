"""The capture map: every photo where it was taken, with what was found of it; a UE's photos, and the time, chosen."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plotly.callbacks import Points

from crowdnerf_lab.captures.bundle import CaptureSet, GpsFix
from crowdnerf_lab.captures.coverage import Coverage, CoverageSettings
from crowdnerf_lab.captures.poses.calibration import calibrate
from crowdnerf_lab.captures.poses.report import CalibrationReport, CalibrationRow
from crowdnerf_lab.widgets.capture_map_widget import NOBODY, CaptureMap, capture_map
from crowdnerf_lab.widgets.placed_photos import NOT_POSED, cameras_of, placed_photos
from tests.toy_crowd import EACH, pose_of, screening_of, toy_captures


@pytest.fixture
def captures(tmp_path: Path) -> CaptureSet:
    return toy_captures(tmp_path)


def named(map_: CaptureMap, name: str):
    return next(trace for trace in map_.figure.data if trace.name.startswith(name))


def test_rejected_photos_carry_their_reasons(captures: CaptureSet) -> None:
    report = screening_of(captures, {"ue1_2.jpg": "half as sharp as the UE's others"})
    shown = capture_map(captures, screening=report)
    assert "12 photos: 11 kept, 1 blurred" in shown.words.value
    rejected = named(shown, "blurred (1)")
    assert "half as sharp" in rejected.text[0]
    assert list(rejected.customdata) == ["ue1"]
    assert np.allclose([rejected.x[0], rejected.y[0], rejected.z[0]], np.array(pose_of(5))[:, 3], atol=1e-5)
    assert len(named(shown, "kept (11)").x) == 11


def test_calibrated_places_stand_beside_where_phones_say(captures: CaptureSet) -> None:
    scene, report = calibrate(captures, poses="metadata")
    moved = scene.cameras.camera_to_world.clone()
    moved[:, 0, 3] += 2.0
    scene = replace(scene, cameras=replace(scene.cameras, camera_to_world=moved))
    photos = placed_photos(captures, scene=scene, calibration=report)
    assert all(photo.calibrated for photo in photos)
    assert [photo.gps_error_m for photo in photos] == pytest.approx([2.0] * 12, abs=1e-4)
    shown = capture_map(captures, scene=scene, calibration=report)
    assert "2.0 m away (median)" in shown.words.value
    said = named(shown, "where phones say they were (12)")
    assert said.x[0] == pytest.approx(pose_of(0)[0][3], abs=1e-5)
    assert "GPS 2.0 m" in said.text[0]


def test_in_a_frame_of_its_own_reports_mean_nothing(captures: CaptureSet) -> None:
    scene, report = calibrate(captures, poses="metadata")
    lost = tuple(replace(row, registered=row.photo != "ue0_0.jpg", problem="shares too little") for row in report.rows)
    report = replace(report, coordinates="arbitrary", rows=lost)
    names = tuple("gone" if name == "ue0_0.jpg" else name for name in scene.image_names)
    photos = placed_photos(captures, scene=replace(scene, image_names=names), calibration=report)
    assert all(photo.gps is None and math.isnan(photo.gps_error_m) for photo in photos)
    assert (photos[0].finding, photos[0].reason, photos[0].position) == (NOT_POSED, "shares too little", None)
    assert len(cameras_of(photos)[0]) == 11


def test_gps_alone_is_a_place_without_a_frustum(captures: CaptureSet) -> None:
    photo = captures.captures[0].photos[0]
    fixed = photo.model_copy(update={"reported": None, "gps": GpsFix(position=(1.0, 2.0, 3.0))})
    capture = captures.captures[0].model_copy(update={"photos": (fixed,)})
    placed = placed_photos(replace(captures, captures=(capture,)))
    assert placed[0].position == (1.0, 2.0, 3.0)
    assert len(cameras_of(placed)[0]) == 0


def test_choosing_a_ue_shows_its_photos_by_click_and_by_keyboard(captures: CaptureSet) -> None:
    shown = capture_map(captures, screening=screening_of(captures, {"ue2_0.jpg": "half as sharp"}))
    kept = named(shown, "kept (")
    index = list(kept.customdata).index("ue2")
    kept._dispatch_on_click(Points(point_inds=[index]), None)
    assert (shown.chosen, shown.ue.value) == ("ue2", "ue2")
    heading, *parts = shown.beside.children
    assert "3 photos" in heading.value
    assert len(parts) == 2 * EACH
    assert any("half as sharp" in part.value for part in parts[1::2])
    assert parts[0].value[:2] == b"\xff\xd8"
    assert named(shown, "chosen UE").visible
    shown.ue.value = NOBODY
    assert (shown.chosen, shown.beside.children) == (None, ())
    assert not named(shown, "chosen UE").visible
    shown.next.click()
    assert shown.chosen == "ue0"
    with pytest.raises(ValueError, match=r"no UE 'ue9'.* ue0, ue1"):
        shown.choose("ue9")


def test_time_slider_only_for_timed_captures(captures: CaptureSet, tmp_path: Path) -> None:
    assert capture_map(captures).time is None
    shown = capture_map(toy_captures(tmp_path, seconds_apart=1.0))
    assert shown.time.value == (0.0, 11.0)
    shown.time.value = (3.0, 5.0)
    assert "1 UE, 3 photos" in shown.words.value
    assert set(named(shown, "kept (").customdata) == {"ue1"}
    assert repr(shown) == "1 UE, 3 photos: 3 kept"
    assert len(shown.still().data) == len(shown.figure.data)
    shown.time.value = (0.0, 11.0)
    assert len(named(shown, "kept (").x) == 12


def test_photos_stand_in_their_frusta_and_can_be_left_out(captures: CaptureSet) -> None:
    shown = capture_map(captures, frustum_m=2.0)
    mesh = named(shown, "photos")
    assert len(mesh.vertexcolor) == len(mesh.x) == 12 * 14 * 11
    assert mesh.vertexcolor[-1] != mesh.vertexcolor[0]
    corners = np.stack([mesh.x, mesh.y, mesh.z], axis=-1)[: 14 * 11]
    away = (corners - np.array(pose_of(0))[:, 3]) @ np.array(pose_of(0))[:, 2]
    assert away == pytest.approx(np.full(154, 2.0), abs=1e-4)
    assert {*mesh.i, *mesh.j, *mesh.k} == set(range(len(mesh.x)))
    shown.shows_photos.value = False
    assert mesh.visible is False


def test_points_and_gaps_are_drawn(captures: CaptureSet) -> None:
    points = CalibrationReport(
        poses="colmap",
        align="metadata",
        rows=tuple(CalibrationRow("ue0", photo.file, True, 0.0, 0.0, "") for photo in captures.photos),
        points=torch.rand(50, 3),
        colours=torch.full((50, 3), 9, dtype=torch.uint8),
        reprojection_px=0.5,
        seconds=1.0,
    )
    matter = torch.zeros(4, 4, 4, dtype=torch.bool)
    matter[1, 1, 1] = True
    seen = (~matter).long()
    covered = Coverage(seen, seen.float(), matter, torch.zeros(3), torch.ones(3), CoverageSettings())
    shown = capture_map(captures, calibration=points, covered=covered)
    gap = named(shown, "no photo shows it (1 m³)")
    assert (gap.x[0], gap.y[0], gap.z[0]) == (1.5, 1.5, 1.5)
    assert named(shown, "scene points").marker.color[0] == "rgb(9,9,9)"
    assert 40 <= len(named(shown, "scene points").x) <= 50


def test_unreadable_photos_leave_the_map_whole(captures: CaptureSet) -> None:
    captures.path_of("ue0_1.jpg").write_bytes(b"nothing")
    shown = capture_map(captures)
    assert len(named(shown, "photos").x) == 11 * 154
    shown.choose("ue0")
    assert len(shown.beside.children) == 1 + 2 * EACH - 1


def test_nothing_to_show_is_said(captures: CaptureSet) -> None:
    with pytest.raises(ValueError, match="no photos to put on a map"):
        capture_map(captures.keeping([]))
    bare = [photo.model_copy(update={"reported": None}) for photo in captures.captures[0].photos]
    capture = captures.captures[0].model_copy(update={"photos": tuple(bare)})
    with pytest.raises(ValueError, match=r"has a place; calibrate it \(poses='colmap'\)"):
        capture_map(replace(captures, captures=(capture,)))
