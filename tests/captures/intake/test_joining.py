"""Uploads that come one after the other land in one frame: positions, attitudes and times agree with a tape measure."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pymap3d
import pytest

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Clip, Consent, GpsFix, Photo, ReportedPose
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.intake.joining import expressed_like, joined

BEGAN = datetime(2026, 6, 20, 19, 0, tzinfo=UTC)
HOME, AWAY = (55.7, 13.19, 40.0), (55.71, 13.2, 55.0)
ATTITUDE = ((0.0, 0.6, 0.8, 1.0), (-1.0, 0.0, 0.0, 2.0), (0.0, -0.8, 0.6, 3.0))
YES = Consent(train=True, publish=True)


def event(ue, *photos, origin=HOME, began=BEGAN, coordinates="enu", consent=YES, clips=(), name="event"):
    capture = Capture(ue=ue, device="phone", consent=consent, licence="CC0", photos=photos, clips=clips)
    return CaptureSet(
        root=Path("folder"),
        name=name,
        licence="CC0",
        origin_wgs84=origin,
        captures=(capture,),
        coordinates=coordinates,
        began=began,
    )


def photo(file="a.jpg", **fields):
    return Photo(**{"file": file, "width": 4, "height": 3, "focal_px": 4.0, "time_s": 0.0} | fields)


def test_positions_stay_where_they_are_on_earth():
    there = GpsFix(position=(12.0, -7.0, 3.0), heading=1.0)
    uploaded = event("b", photo(gps=there, reported=ReportedPose(camera_to_world=ATTITUDE)), origin=AWAY)
    moved = expressed_like(event("a", photo(gps=there)), uploaded)
    (result,) = moved.photos
    assert moved.origin_wgs84 == HOME
    on_earth = pymap3d.enu2geodetic(*there.position, *AWAY)
    assert pymap3d.enu2geodetic(*result.gps.position, *HOME) == pytest.approx(on_earth, abs=1e-6)
    assert result.gps.heading == there.heading
    pose, before = np.array(result.reported.camera_to_world), np.array(ATTITUDE)
    assert pose[:, :3] @ pose[:, :3].T == pytest.approx(np.eye(3), abs=1e-9)
    # A point ten metres before the camera is the same point on Earth.
    ahead = [matrix[:, :3] @ (0, 0, 10) + matrix[:, 3] for matrix in (before, pose)]
    assert pymap3d.enu2geodetic(*ahead[1], *HOME) == pytest.approx(pymap3d.enu2geodetic(*ahead[0], *AWAY), abs=1e-6)


def test_times_count_from_the_events_beginning():
    late = BEGAN + timedelta(minutes=2)
    clip = Clip(file="c.mp4", time_s=5.0)
    moved = expressed_like(event("a", photo()), event("b", photo(time_s=1.5), began=late, clips=(clip,)))
    assert moved.photos[0].time_s == 121.5
    assert moved.captures[0].clips[0].time_s == 125.0
    assert moved.began == BEGAN
    unknown = expressed_like(event("a", photo()), event("b", photo(time_s=1.5), began=None))
    assert unknown.photos[0].time_s == 1.5


def test_an_event_without_positions_takes_on_those_of_an_upload():
    placed = event("b", photo(gps=GpsFix(position=(1.0, 2.0, 3.0))), origin=AWAY)
    moved = expressed_like(event("a", photo(), origin=None, coordinates="arbitrary"), placed)
    assert (moved.origin_wgs84, moved.coordinates) == (AWAY, "enu")
    assert moved.photos == placed.photos
    back = expressed_like(placed, event("c", photo(), origin=None, coordinates="arbitrary"))
    assert (back.origin_wgs84, back.coordinates) == (AWAY, "enu")


def test_frames_that_nothing_relates_are_refused():
    reported = photo(reported=ReportedPose(camera_to_world=ATTITUDE))
    tracked = event("a", reported, origin=None, coordinates="metric")
    with pytest.raises(CaptureError, match="a folder of its own"):
        expressed_like(event("b", reported), tracked)
    with pytest.raises(CaptureError, match="a folder of its own"):
        expressed_like(replace(tracked, name="another"), tracked)
    assert expressed_like(tracked, tracked).photos == tracked.photos


def test_joining_depends_on_no_order_and_takes_the_lesser_consent():
    no_publishing = Consent(train=True, publish=False)
    before = event("b", photo("b/1.jpg", time_s=9.0))
    uploaded = event("b", photo("x.jpg"), consent=no_publishing)
    taken = [("b", photo("b/3.jpg", time_s=3.0)), ("b", photo("b/2.jpg", time_s=math.pi))]
    results = [joined(before, uploaded, order) for order in (taken, taken[::-1])]
    assert results[0] == results[1]
    assert [kept.file for kept in results[0].photos] == ["b/3.jpg", "b/2.jpg", "b/1.jpg"]
    assert results[0].captures[0].consent == no_publishing
    assert joined(results[0], uploaded, taken) == results[0]
