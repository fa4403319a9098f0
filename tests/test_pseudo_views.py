"""Pseudo views: poses where UEs look, windows of views, rendered once whatever happens."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.cameras import invalid_poses
from crowdnerf_lab.files import FileError
from crowdnerf_lab.pseudo_views import (
    PseudoViewError,
    among,
    poses_between,
    render_pseudo_views,
    viewing_cameras,
    windows_of,
)
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.rendering import Rendered, render_view
from tests.toy_field import ToyField, toy_cameras, toy_scene


def test_pseudo_poses_are_poses_near_the_captured_ones() -> None:
    cameras = toy_cameras(12)
    between = poses_between(cameras, 200, margin=0.1, angle=0.04, seed=1)
    assert not invalid_poses(between.camera_to_world).any()
    nearest = torch.cdist(between.positions, cameras.positions).min(1).values
    assert nearest.max() < 2.5
    assert torch.equal(
        between.camera_to_world, poses_between(cameras, 200, margin=0.1, angle=0.04, seed=1).camera_to_world
    )
    assert not torch.equal(between.positions, poses_between(cameras, 200, margin=0.1, angle=0.04, seed=2).positions)


def test_without_margin_the_first_round_is_the_captured_poses_and_the_rest_lies_between() -> None:
    cameras = toy_cameras(12)
    between = poses_between(cameras, 100, margin=0.0, angle=0.0, seed=0)
    torch.testing.assert_close(between.camera_to_world[:12], cameras.camera_to_world, atol=1e-6, rtol=1e-5)
    low, high = cameras.positions.amin(0), cameras.positions.amax(0)
    assert (between.positions >= low - 1e-5).all()
    assert (between.positions <= high + 1e-5).all()


def test_a_window_is_a_part_of_the_view() -> None:
    field, cameras = ToyField(), toy_cameras(4)
    windows = windows_of(cameras, 16, seed=3)
    for i in range(4):
        whole, part = render_view(field, cameras, i).colour, render_view(field, windows, i).colour
        left, top = (cameras.centre[i] - windows.centre[i]).long().tolist()
        torch.testing.assert_close(part, whole[top : top + 16, left : left + 16], atol=1e-4, rtol=1e-3)


@given(st.sampled_from([1, 2, 4, 8]), st.integers(0, 5))
def test_one_pixel_of_every_block_is_what_the_whole_view_shows_there(step: int, seed: int) -> None:
    field, windows = ToyField(), windows_of(toy_cameras(3), 16, seed=1)
    views = render_pseudo_views(field, windows, step=step, seed=seed, progress=False)
    assert views.images.shape == (3, 16 // step, 16 // step, 3)
    whole = render_pseudo_views(field, windows, progress=False).images
    for view, row, column in np.ndindex(*views.images.shape[:3]):
        u, v = views.offsets[view, row, column]
        assert max(u, v) < step
        error = views.images[view, row, column].astype(int) - whole[view, step * row + v, step * column + u]
        assert np.abs(error).max() <= 1


def test_portrait_photos_keep_the_angular_size_of_a_pixel() -> None:
    scene = toy_scene()
    upright = replace(scene.cameras, width=scene.cameras.height, height=scene.cameras.width)
    same = viewing_cameras(scene.cameras[:3], width=96, height=80)
    torch.testing.assert_close(same.focal, viewing_cameras(upright[:3], width=96, height=80).focal)
    torch.testing.assert_close(same.focal, 2 * scene.cameras.focal[:3])


def test_those_among_some_cameras_stand_no_further_than_neighbours_do() -> None:
    cameras = toy_cameras(12)
    assert among(cameras, cameras).all()
    assert among(cameras[0:12:2], cameras[1:11:2]).all()
    assert among(cameras[:4], cameras).tolist() == [True] * 4 + [i < 5 for i in range(4, 12)]
    assert among(cameras[:1], cameras).tolist() == [True] + [False] * 11


def test_views_are_rendered_once_and_found_again(tmp_path: Path) -> None:
    cameras = windows_of(toy_cameras(40), 16, seed=0)
    first = render_pseudo_views(ToyField(), cameras, folder=tmp_path, progress=False)
    modified = (tmp_path / "views.npy").stat().st_mtime_ns
    again = render_pseudo_views(_Failing(), cameras, folder=tmp_path, progress=False)
    assert np.array_equal(first.images, again.images)
    assert (tmp_path / "views.npy").stat().st_mtime_ns == modified


def test_rendering_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crowdnerf_lab.pseudo_views.RAYS_AT_ONCE", 4 * 256)
    cameras = windows_of(toy_cameras(24), 16, seed=0)
    whole = render_pseudo_views(ToyField(), cameras, progress=False)
    with pytest.raises(KeyboardInterrupt):
        render_pseudo_views(_Failing(after=3), cameras, folder=tmp_path, progress=False)
    assert json.loads((tmp_path / "views.json").read_text())["finished"] == 12
    teacher = _Counting()
    resumed = render_pseudo_views(teacher, cameras, folder=tmp_path, progress=False)
    assert teacher.calls == 3
    assert np.array_equal(resumed.images, whole.images)


def test_views_of_another_teacher_are_not_used(tmp_path: Path) -> None:
    cameras = windows_of(toy_cameras(8), 16, seed=0)
    first = render_pseudo_views(ToyField(), cameras, folder=tmp_path, progress=False).images.copy()
    other = ToyField()
    other.colours.mul_(0.3)
    second = render_pseudo_views(other, cameras, folder=tmp_path, progress=False)
    assert not np.array_equal(first, second.images)


def test_damaged_views_are_refused(tmp_path: Path) -> None:
    cameras = windows_of(toy_cameras(8), 16, seed=0)
    render_pseudo_views(ToyField(), cameras, folder=tmp_path, progress=False)
    (tmp_path / "views.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(PseudoViewError, match=r"views\.npy is damaged"):
        render_pseudo_views(ToyField(), cameras, folder=tmp_path, progress=False)


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(FileError, match=r"views\.npy.*No space left on device; free some space"):
        render_pseudo_views(ToyField(), windows_of(toy_cameras(4), 16, seed=0), folder=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_renders_nan_is_refused() -> None:
    broken = ToyField()
    broken.colours[0, 0] = math.nan
    with pytest.raises(PseudoViewError, match="not finite"):
        render_pseudo_views(broken, windows_of(toy_cameras(4), 16, seed=0), progress=False)


class _Counting(ToyField):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def render(self, rays: Rays) -> Rendered:
        self.calls += 1
        return super().render(rays)


class _Failing(_Counting):
    """The same field by its weights, interrupted after some calls."""

    def __init__(self, after: int = 0) -> None:
        super().__init__()
        self.after = after

    def render(self, rays: Rays) -> Rendered:
        if self.calls == self.after:
            raise KeyboardInterrupt
        return super().render(rays)
