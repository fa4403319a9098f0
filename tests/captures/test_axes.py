"""Axes: conversions that undo each other, and quaternions that turn what they say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.captures.axes import (
    inverse,
    llff_to_opencv,
    opencv_to_opengl,
    opengl_to_opencv,
    pose_of_quaternion,
    quaternion_of,
    y_up_to_z_up,
)

POSES = st.lists(st.floats(-10, 10, width=32), min_size=12, max_size=12).map(lambda n: torch.tensor(n).reshape(3, 4))
UNIT_QUATERNIONS = (
    st.lists(st.floats(-1, 1), min_size=4, max_size=4)
    .map(lambda numbers: torch.tensor(numbers, dtype=torch.float64))
    .filter(lambda numbers: float(numbers.norm()) > 0.1)
    .map(lambda numbers: numbers / numbers.norm())
)


@given(POSES)
def test_axis_conversions_are_inverse_and_keep_the_position(pose):
    assert torch.equal(opencv_to_opengl(opengl_to_opencv(pose)), pose)
    assert torch.equal(opengl_to_opencv(pose)[:, 3], pose[:, 3])
    assert torch.equal(opengl_to_opencv(pose)[:, 0], pose[:, 0])


def test_llffs_columns_are_down_right_backward():
    pose = torch.tensor([[0.0, 1.0, 0.0, 7.0], [-1.0, 0.0, 0.0, 8.0], [0.0, 0.0, 1.0, 9.0]])
    right, down, forward, position = llff_to_opencv(pose).unbind(-1)
    assert (right.tolist(), down.tolist(), forward.tolist()) == ([1, 0, 0], [0, -1, 0], [0, 0, -1])
    assert position.tolist() == [7, 8, 9]


def test_a_world_with_y_up_becomes_one_with_z_up_and_is_not_mirrored():
    pose = torch.cat([torch.eye(3), torch.tensor([[1.0], [2.0], [3.0]])], dim=-1)
    turned = y_up_to_z_up(pose)
    assert turned[:, 1].tolist() == [0, 0, 1]
    assert torch.linalg.det(turned[:, :3]) == pytest.approx(1)
    assert turned[:, 3].tolist() == [3, 1, 2]


@given(UNIT_QUATERNIONS, st.lists(st.floats(-10, 10), min_size=3, max_size=3))
def test_quaternions_and_inverses_come_back(quaternion, position):
    pose = pose_of_quaternion(quaternion.tolist(), position)
    torch.testing.assert_close(pose[:, :3] @ pose[:, :3].T, torch.eye(3, dtype=torch.float64))
    again = torch.tensor(quaternion_of(pose[:, :3]), dtype=torch.float64)
    assert float((again @ quaternion).abs()) == pytest.approx(1)
    torch.testing.assert_close(inverse(inverse(pose)), pose)


def test_a_quarter_turn_about_z_takes_x_to_y():
    pose = pose_of_quaternion((0.0, 0.0, math.sin(math.pi / 4), math.cos(math.pi / 4)), (1.0, 2.0, 3.0))
    torch.testing.assert_close(pose[:, 0], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert pose[:, 3].tolist() == [1, 2, 3]


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (1, 1, 0, 0), (math.nan, 0, 0, 1)])
def test_what_is_no_unit_quaternion_is_refused(quaternion):
    with pytest.raises(ValueError, match="instead of 1"):
        pose_of_quaternion(quaternion, (0, 0, 0))
