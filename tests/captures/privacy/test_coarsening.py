"""Coarse places, times and devices: never finer than asked, never further off than told."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.captures.bundle import GpsFix, Photo, ReportedPose
from crowdnerf_lab.captures.privacy.coarsening import (
    METRES_PER_DEGREE,
    coarse_day,
    coarse_device,
    coarse_fix,
    coarse_origin,
    coarse_time,
    grid_step,
)

LATITUDES, LONGITUDES = st.floats(-85, 85), st.floats(-180, 180)


@given(LATITUDES, LONGITUDES, st.floats(-100, 4000), st.sampled_from([50.0, 300.0, 1000.0, 5000.0]))
def test_an_origin_moves_to_a_fixed_grid_that_is_no_finer_than_asked(latitude, longitude, altitude, grid_m):
    lat, lon, alt = coarse_origin((latitude, longitude, altitude), grid_m=grid_m)
    step = grid_step(grid_m / METRES_PER_DEGREE)
    parallel = METRES_PER_DEGREE * math.cos(math.radians(lat))
    assert step * METRES_PER_DEGREE >= grid_m
    for value, cell in ((lat, step), (lon, grid_step(grid_m / parallel)), (alt, grid_step(grid_m))):
        assert value / cell == pytest.approx(round(value / cell), abs=1e-6) or abs(value) in (90, 180)
    assert abs(lat - latitude) * METRES_PER_DEGREE <= 1.26 * grid_m
    assert abs(lon - longitude) * parallel <= 1.26 * grid_m or abs(lon) == 180
    assert len(f"{lat:g}".split(".")[-1]) <= 5
    assert coarse_origin((lat, lon, alt), grid_m=grid_m) == (lat, lon, alt)


def test_neighbours_share_one_origin_and_poles_have_one():
    home = coarse_origin((48.8581, 2.2942, 35.0), grid_m=1000)
    assert home == coarse_origin((48.8602, 2.2969, 80.0), grid_m=1000)
    assert home == (48.86, 2.3, 0.0)
    assert coarse_origin((89.9999, 12.3, 0), grid_m=1000)[0] == 90


def test_steps_are_one_two_and_five():
    assert [grid_step(value) for value in (1, 1.5, 2.1, 6, 0.009, 0.0201)] == [1, 2, 5, 10, 0.01, 0.05]
    for bad in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive length"):
            grid_step(bad)


def posed(position, columns=((1, 0, 0), (0, 0, 1), (0, -1, 0))) -> ReportedPose:
    rows = tuple((*row, place) for row, place in zip(columns, position, strict=True))
    return ReportedPose(camera_to_world=rows)


PHOTO = Photo(file="a.jpg", width=4, height=3, focal_px=4.0, time_s=0.0)


def test_a_reported_pose_leaves_as_a_coarse_place_and_its_heading():
    """The columns are right, down and forward: looking north has a heading of 0."""
    photo = PHOTO.model_copy(update={"reported": posed((12.3, -651.0, 3.0))})
    assert coarse_fix(photo, grid_m=100) == GpsFix(position=(0, -700, 0), accuracy_m=100, heading=0)
    east = PHOTO.model_copy(update={"reported": posed((0, 0, 0), ((0, 0, 1), (-1, 0, 0), (0, -1, 0)))})
    fix = coarse_fix(east, grid_m=100)
    assert fix is not None
    assert fix.heading == pytest.approx(math.pi / 2)
    down = PHOTO.model_copy(update={"reported": posed((0, 0, 0), ((1, 0, 0), (0, -1, 0), (0, 0, -1)))})
    fix = coarse_fix(down, grid_m=100)
    assert fix is not None
    assert fix.heading is None
    assert coarse_fix(PHOTO, grid_m=100) is None


def test_a_gps_fix_never_claims_to_be_better_than_the_grid():
    photo = PHOTO.model_copy(update={"gps": GpsFix(position=(2049.0, 3.0, 49.0), accuracy_m=4.0, heading=1.5)})
    assert coarse_fix(photo, grid_m=100) == GpsFix(position=(2000, 0, 0), accuracy_m=100, heading=1.5)


def test_times_days_and_devices():
    assert coarse_time(12.4321, step_s=1.0) == 12.0
    assert coarse_time(12.4321, step_s=0.5) == 12.5
    assert coarse_time(12.4321, step_s=0.125) == 12.375
    for step in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="give a positive number"):
            coarse_time(1.0, step_s=step)
    assert coarse_day(datetime(2026, 7, 1, 20, 15, 30, tzinfo=UTC)) == datetime(2026, 7, 1, tzinfo=UTC)
    assert coarse_day(None) is None
    assert coarse_device("Anna’s iPhone") == "Apple"
    assert coarse_device("samsung SM-G991B 3f9a") == "Samsung"
    assert coarse_device("Anna Miller") == "phone"
