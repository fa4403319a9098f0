from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from crowdnerf_lab.captures.video.containers import opened_video
from crowdnerf_lab.live_rendering.camera_paths import camera_path
from crowdnerf_lab.live_rendering.recording import record_path
from crowdnerf_lab.live_rendering.sources import LiveRenderingError
from crowdnerf_lab.rendering import render_view
from tests.live_rendering.test_sources import view_of
from tests.toy_field import ToyField

KEYS = [view_of(photo) for photo in (0, 4, 8, 11)]


def test_a_path_passes_its_keys_smoothly():
    path = camera_path(KEYS, seconds=10, frames_per_second=24)
    poses = np.stack([view.pose for view in path]).astype(np.float64)
    assert len(path) == 241
    for key in KEYS:
        assert np.abs(poses - key.pose).max((1, 2)).min() < 0.02
    np.testing.assert_allclose(poses[[0, -1]], [KEYS[0].pose, KEYS[-1].pose], atol=1e-5)
    steps = np.linalg.norm(np.diff(poses[:, :, 3], axis=0), axis=1)
    assert steps.max() < 2 * steps.min()
    assert np.abs(np.diff(steps)).max() < 0.2 * steps.mean()
    for view in path:
        view.check()


def test_keys_that_do_not_move_count_once():
    twice = camera_path([KEYS[0], KEYS[0], KEYS[2], KEYS[2]], seconds=1)
    once = camera_path([KEYS[0], KEYS[2]], seconds=1)
    np.testing.assert_allclose([v.pose for v in twice], [v.pose for v in once], atol=1e-6)


def test_turning_on_the_spot_is_a_path():
    pose = view_of(8).pose.copy()
    pose[:, 3] = view_of(0).pose[:, 3]
    path = camera_path([view_of(0), replace(view_of(0), camera_to_world=pose)], seconds=1)
    positions = np.stack([view.pose[:, 3] for view in path])
    assert np.abs(positions - positions[0]).max() < 1e-4


@pytest.mark.parametrize(
    ("keys", "seconds", "said"),
    [([], 1, "two different key views, got 0"), (KEYS[:1], 1, "got 1"), (KEYS, 0.01, "hold no flight")],
)
def test_what_is_no_path_is_said(keys, seconds, said):
    with pytest.raises(LiveRenderingError, match=said):
        camera_path(keys, seconds=seconds)


@pytest.mark.parametrize("name", ["flight.mp4", "flight.gif"])
def test_a_flight_becomes_a_film(tmp_path, name):
    path = camera_path(KEYS, seconds=0.5, frames_per_second=10)
    told = []
    file = record_path(
        ToyField(),
        path,
        file=tmp_path / name,
        frames_per_second=10,
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(n, 6) for n in range(1, 7)]
    pictures = read_film(file)
    assert len(pictures) == 6
    for view, picture in zip(path, pictures, strict=True):
        truth = 255 * render_view(ToyField(), view.cameras()).colour.numpy()
        assert np.abs(picture - truth).mean() < 6


def read_film(file):
    if file.suffix == ".gif":
        with Image.open(file) as film:
            assert film.info["duration"] == 100
            frames = []
            for number in range(film.n_frames):
                film.seek(number)
                frames.append(np.asarray(film.convert("RGB"), np.float32))
            return frames
    with opened_video(file) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.float32) for frame in container.decode(video=0)]


def test_a_recording_that_is_stopped_leaves_nothing_behind(tmp_path):
    class EnoughError(Exception):
        pass

    def stop(done: int, of: int) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        record_path(ToyField(), KEYS, file=tmp_path / "flight.mp4", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "views", "mode", "said"),
    [
        ("flight.avi", KEYS, "colour", "neither an .mp4 nor a .gif"),
        ("flight.gif", [], "colour", "no views to record"),
        ("flight.gif", KEYS, "occupancy", "no mode 'occupancy'"),
    ],
)
def test_what_cannot_be_recorded_is_said(tmp_path, file, views, mode, said):
    with pytest.raises(LiveRenderingError, match=said):
        record_path(ToyField(), views, file=tmp_path / file, mode=mode)
    assert list(tmp_path.iterdir()) == []
