"""What may be asked for: any camera that there can be, and no other."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab import cameras
from crowdnerf_lab.network.views import view_request
from crowdnerf_lab.network.views.view_request import ViewError, ViewRequest
from tests.network.toy_views import request_from

REQUEST = request_from()


def test_rotations_are_judged_as_elsewhere() -> None:
    assert view_request.ROTATION_TOLERANCE == cameras.ROTATION_TOLERANCE


@given(st.lists(st.floats(allow_nan=True, width=64), min_size=12, max_size=12))
def test_whatever_numbers_a_pose_has_are_judged(numbers: list[float]) -> None:
    pose = np.array(numbers).reshape(3, 4)
    try:
        replace(REQUEST, camera_to_world=pose).check()
    except ViewError:
        return
    assert np.abs(pose[:, :3] @ pose[:, :3].T - np.eye(3)).max() < 2 * view_request.ROTATION_TOLERANCE


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"camera_to_world": REQUEST.pose * [-1, 1, 1, 1]}, "mirrors"),
        ({"camera_to_world": REQUEST.pose + [[0, 0, 0, 1e9]] * 3}, "m away"),
        ({"camera_to_world": np.eye(4)}, "not 3 x 4"),
        ({"focal": (1e-9, 40.0)}, "focal above 0"),
        ({"focal": (1e30, 40.0)}, "focal above 0"),
        ({"focal": (math.nan, 40.0)}, "give finite pixels"),
        ({"centre": (1e30, 16.0)}, "principal point"),
    ],
)
def test_cameras_that_cannot_be_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ViewError, match=says):
        replace(REQUEST, **changes).check()


def test_a_service_may_allow_fewer_pixels() -> None:
    with pytest.raises(ViewError, match="ask for 1 to 1000 pixels"):
        REQUEST.check(most_pixels=1000)


@given(st.integers(1, 600), st.integers(1, 600), st.floats(0.1, 1.0))
def test_a_smaller_view_shows_the_same(width: int, height: int, scale: float) -> None:
    request = request_from(width=width, height=height)
    smaller = request.scaled(scale)
    assert 1 <= smaller.width <= width
    assert 1 <= smaller.height <= height
    for axis, (size, less) in enumerate(((width, smaller.width), (height, smaller.height))):
        for edge in (0.0, 1.0):  # the rays through the picture's edges stay what they were
            before = (edge * size - request.centre[axis]) / request.focal[axis]
            after = (edge * less - smaller.centre[axis]) / smaller.focal[axis]
            assert after == pytest.approx(before)


def test_a_request_of_tensors_is_one_of_arrays() -> None:
    of_tensors = replace(REQUEST, camera_to_world=torch.from_numpy(REQUEST.pose))
    assert np.array_equal(of_tensors.pose, REQUEST.pose)
    assert torch.equal(of_tensors.cameras().camera_to_world[0], torch.from_numpy(REQUEST.pose))


def test_a_request_needs_no_torch() -> None:
    assert isinstance(ViewRequest(REQUEST.pose.tolist(), (1.0, 1.0), (0.0, 0.0), 1, 1).pose, np.ndarray)
