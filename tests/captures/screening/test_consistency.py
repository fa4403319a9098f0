"""Places and attitudes against the reconstruction: invented ones are found, the errors that phones have are not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from crowdnerf_lab.cameras import look_at, rotation_angle
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, GpsFix, Photo, ReportedPose, concert
from crowdnerf_lab.captures.poses.calibration import calibrate
from crowdnerf_lab.captures.poses.georegistration import Similarity, similarity_between
from crowdnerf_lab.captures.screening.consistency import ConsistencyLimits, screen_poses
from crowdnerf_lab.captures.screening.report import ScreeningReport
from crowdnerf_lab.scene import PosedScene


@pytest.fixture(scope="module")
def posed() -> tuple[CaptureSet, PosedScene]:
    """The concert with its true poses: what a reconstruction would find."""
    captures = concert()
    return captures, calibrate(captures, poses="truth")[0]


def changed(captures: CaptureSet, ues: dict[str, list[dict]]) -> CaptureSet:
    """The captures with other fields for the photos of some UEs, photo after photo."""
    edited = []
    for capture in captures.captures:
        fields = ues.get(capture.ue, [])
        photos = [photo.model_copy(update=update) for photo, update in zip(capture.photos, fields, strict=False)]
        edited.append(capture.model_copy(update={"photos": (*photos, *capture.photos[len(photos) :])}))
    return replace(captures, captures=tuple(edited))


def moved(photo: Photo, east: float, north: float = 0.0) -> dict:
    """A reported pose that lies elsewhere."""
    assert photo.reported is not None
    pose = torch.tensor(photo.reported.camera_to_world, dtype=torch.float64)
    pose[0, 3] += east
    pose[1, 3] += north
    return {"reported": ReportedPose(camera_to_world=pose.tolist())}


def owner_of(captures: CaptureSet, ue: str) -> Capture:
    return next(capture for capture in captures.captures if capture.ue == ue)


def reasons(report: ScreeningReport) -> dict[str, str]:
    return {row.photo: row.check for row in report.rejected}


@pytest.mark.row("S64")
def test_the_errors_of_the_concerts_phones_are_usual(posed):
    captures, scene = posed
    kept, report = screen_poses(captures, scene)
    assert reasons(report) == {}
    assert kept == captures
    measured = {row.check: row.measured for row in report.rows if row.photo == captures.photos[0].file}
    assert set(measured) == {"copied", "speed", "frozen", "position", "attitude"}
    assert 0 < measured["position"] < 12
    assert math.isnan(measured["speed"])


@pytest.mark.row("S64")
@pytest.mark.parametrize("metres", [40.0, 120.0])
def test_an_invented_position_is_found_for_one_photo_and_for_a_whole_ue(posed, metres):
    captures, scene = posed
    liar, slip = owner_of(captures, "ue20"), owner_of(captures, "ue30")
    spoofed = changed(
        captures,
        {"ue20": [moved(photo, metres) for photo in liar.photos], "ue30": [{}, moved(slip.photos[1], 0.0, -metres)]},
    )
    kept, report = screen_poses(spoofed, scene)
    assert reasons(report) == dict.fromkeys([*(p.file for p in liar.photos), slip.photos[1].file], "position")
    assert all(abs(row.measured - metres) < 12 for row in report.rejected)
    assert "m from the reconstruction" in report.rejected[0].reason
    assert [capture.ue for capture in kept.captures] == [c.ue for c in captures.captures if c.ue != "ue20"]


def test_a_third_of_the_ues_may_lie_and_the_others_are_believed(posed):
    captures, scene = posed
    liars = captures.captures[::3]
    spoofed = changed(captures, {liar.ue: [moved(photo, 60.0) for photo in liar.photos] for liar in liars})
    assert set(reasons(screen_poses(spoofed, scene)[1])) == {photo.file for liar in liars for photo in liar.photos}


@pytest.mark.row("S64")
def test_liars_cannot_pull_the_georegistration_after_them(posed):
    captures, scene = posed
    liars = captures.captures[::6]
    spoofed = changed(captures, {liar.ue: [moved(photo, 50.0, 30.0) for photo in liar.photos] for liar in liars})
    rows = [scene.image_names.index(photo.file) for photo in spoofed.photos]
    model = Similarity(0.1, look_at(torch.ones(3), torch.zeros(3))[:, :3], torch.tensor([7.0, 8.0, 9.0]))
    unplaced = model.of_poses(scene.cameras.camera_to_world)
    reported = torch.tensor([photo.reported.camera_to_world for photo in spoofed.photos if photo.reported])
    placed = similarity_between(unplaced[rows], reported).of_poses(unplaced.double()).float()
    found = screen_poses(spoofed, replace(scene, cameras=replace(scene.cameras, camera_to_world=placed)))[1]
    assert reasons(found) == {photo.file: "position" for liar in liars for photo in liar.photos}


def test_a_shift_of_all_phones_is_the_frames_not_theirs(posed):
    captures, scene = posed
    everybody = {capture.ue: [moved(photo, 500.0, 200.0) for photo in capture.photos] for capture in captures.captures}
    assert reasons(screen_poses(changed(captures, everybody), scene)[1]) == {}
    # Who alone does not share it is elsewhere, though the numbers agree.
    del everybody["ue20"]
    odd = dict.fromkeys((photo.file for photo in owner_of(captures, "ue20").photos), "position")
    assert reasons(screen_poses(changed(captures, everybody), scene)[1]) == odd


@pytest.mark.row("S64")
def test_an_attitude_that_the_pictures_contradict_is_found(posed):
    captures, scene = posed
    photo = owner_of(captures, "ue20").photos[0]
    pose = torch.tensor(photo.reported.camera_to_world, dtype=torch.float64)
    turned = look_at(pose[:, 3], pose[:, 3] - pose[:, 2] + torch.tensor([0.0, 0.0, 0.1]).double())
    assert float(rotation_angle(turned[:, :3], pose[:, :3])) > 2
    spoofed = changed(captures, {"ue20": [{"reported": ReportedPose(camera_to_world=turned.tolist())}]})
    assert reasons(screen_poses(spoofed, scene)[1]) == {photo.file: "attitude"}


def test_what_a_phone_admits_is_forgiven(posed):
    captures, scene = posed
    photo = owner_of(captures, "ue20").photos[0]
    row = scene.image_names.index(photo.file)
    east, north, up = scene.cameras.positions[row].tolist()
    for accuracy, expected in ((None, "position"), (20.0, None), (5.0, "position")):
        fix = GpsFix(position=(east + 50.0, north, up), accuracy_m=accuracy)
        spoofed = changed(captures, {"ue20": [{"reported": None, "gps": fix}]})
        assert reasons(screen_poses(spoofed, scene)[1]).get(photo.file) == expected


@pytest.mark.row("S64")
def test_several_ues_at_exactly_one_place_are_found_and_two_may_meet(posed):
    captures, scene = posed
    place = (3.0, -20.0, 1.5)
    for ues, expected in ((("ue20", "ue21"), 0), (("ue20", "ue21", "ue22"), 3)):
        fields = {ue: [{"reported": None, "gps": GpsFix(position=place)}] for ue in ues}
        report = screen_poses(changed(captures, fields), scene, limits=ConsistencyLimits(moved=500.0))[1]
        assert list(reasons(report).values()) == ["copied"] * expected


def test_coordinates_that_everybody_shares_are_coarse_not_copied(posed):
    captures, scene = posed
    coarse = {
        capture.ue: [{"reported": None, "gps": GpsFix(position=(20.0 * (i % 5), 0.0, 0.0))} for _ in capture.photos]
        for i, capture in enumerate(captures.captures)
    }
    report = screen_poses(changed(captures, coarse), scene, limits=ConsistencyLimits(moved=500.0, frozen=500.0))[1]
    assert reasons(report) == {}


@pytest.mark.row("S64")
def test_a_leap_that_nobody_runs_is_found_on_the_photo_that_leaps(posed):
    captures, scene = posed
    photos = owner_of(captures, "ue20").photos
    for metres, seconds, expected in ((400.0, 10.0, True), (400.0, 60.0, False), (6.0, 1.0, False)):
        fields = [{"time_s": 100.0 + seconds * index} for index in range(3)]
        fields[1] |= moved(photos[1], metres)
        report = screen_poses(changed(captures, {"ue20": fields}), scene, limits=ConsistencyLimits(moved=1e4))[1]
        assert reasons(report) == ({photos[1].file: "speed"} if expected else {})


@pytest.mark.row("S64")
def test_coordinates_that_stand_still_while_the_ue_walks_are_found(posed):
    captures, scene = posed
    photos = owner_of(captures, "ue20").photos
    fix = GpsFix(position=tuple(scene.cameras.positions[scene.image_names.index(photos[0].file)].tolist()))
    fields = [{"reported": None, "gps": fix} for _ in photos]
    assert reasons(screen_poses(changed(captures, {"ue20": fields}), scene)[1]) == {}
    walked = scene.cameras.camera_to_world.clone()
    walked[scene.image_names.index(photos[2].file), 0, 3] += 18.0
    walker = replace(scene, cameras=replace(scene.cameras, camera_to_world=walked))
    report = screen_poses(changed(captures, {"ue20": fields}), walker, limits=ConsistencyLimits(moved=500.0))[1]
    assert reasons(report) == {photo.file: "frozen" for photo in photos}
    assert [row.measured for row in report.rejected] == pytest.approx([18.0] * 3, abs=3)


def test_photos_without_a_pose_or_a_report_are_kept_and_say_nothing(posed):
    captures, scene = posed
    silent = changed(captures, {"ue20": [{"reported": None}] * 3})
    few = replace(scene, image_names=tuple(f"other {name}" for name in scene.image_names))
    for event, poses in ((silent, scene), (captures, few)):
        kept, report = screen_poses(event, poses)
        assert len(kept.photos) == 144
        rows = [row for row in report.rows if row.ue == "ue20" and row.check in ("position", "attitude")]
        assert np.isnan([row.measured for row in rows]).all()
