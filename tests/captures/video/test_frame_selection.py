"""Frames chosen by motion: the camera's path is known, since the clips look at one large picture through a window."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter1d

pytest.importorskip("av", reason='no PyAV (pip install "crowdnerf-lab[video]")')

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Clip, Consent, GpsFix, ReportedPose, write_captures
from crowdnerf_lab.captures.video.constructed_clips import write_clip
from crowdnerf_lab.captures.video.frame_selection import (
    Look,
    SelectedFrame,
    SelectionSettings,
    chosen,
    photo_of_frame,
    photos_from_clips,
    select_frames,
)
from crowdnerf_lab.captures.video.picture_motion import motion_between

WIDTH, HEIGHT = 160, 120


def world(seed: int = 0) -> np.ndarray:
    """Detail at every scale, 8 windows wide."""
    rng = np.random.default_rng(seed)
    layers = [
        gaussian_filter(rng.normal(size=(HEIGHT + 80, 8 * WIDTH)), scale) * scale for scale in (0.7, 1.5, 3, 6, 12)
    ]
    grey = np.clip(128 + 22 * sum(layers), 0, 255)
    return np.stack([grey, np.roll(grey, 3, axis=1), np.roll(grey, 5, axis=0)], axis=-1).astype(np.uint8)


WORLD = world()


def clip(
    path: Path,
    x_of: Callable[[float], float],
    seconds: float,
    *,
    fps: float = 15,
    blurred: Callable[[float], float] = lambda _: 0,
) -> Path:
    """Through the window at x_of(t) widths, with motion blur of so many pixels."""

    def shots() -> Iterator[tuple[float, np.ndarray]]:
        for index in range(round(seconds * fps)):
            time_s = index / fps
            left = round(x_of(time_s) * WIDTH) + 40
            picture = WORLD[40 : 40 + HEIGHT, left : left + WIDTH]
            if length := round(blurred(time_s)):
                picture = uniform_filter1d(picture, length, axis=1)
            yield time_s, picture

    return write_clip(path, shots())


def test_motion_is_measured_whatever_the_light_does() -> None:
    def view(left: int) -> np.ndarray:
        return WORLD[40:160, left : left + WIDTH, 0].astype(np.float32) / 255

    for pixels in (0, 3, 16, 40, 60):
        assert motion_between(view(100), view(100 + pixels)) == pytest.approx(pixels / WIDTH, abs=0.004)
        assert motion_between(view(100), 0.3 * view(100 + pixels) + 0.1) == pytest.approx(pixels / WIDTH, abs=0.004)
    assert np.isnan(motion_between(view(100), view(700)))


def test_frames_are_spaced_by_motion_not_by_time(tmp_path: Path) -> None:
    """Still for two seconds, then a pan over two widths: the frames are in the pan, as far apart as was asked for."""
    path = clip(tmp_path / "a.mp4", lambda t: max(0.0, t - 2), 4.0)
    frames = select_frames(path, settings=SelectionSettings(spacing=0.2))
    still = [frame for frame in frames if frame.time_s < 2]
    panned = [frame for frame in frames if frame.time_s >= 2]
    assert len(still) <= 2
    assert 7 <= len(panned) <= 11
    positions = np.array([max(0.0, frame.time_s - 2) for frame in frames])
    assert np.diff(positions).max() < 2.5 * 0.2
    assert sum(frame.motion for frame in frames) == pytest.approx(np.diff(positions).sum(), rel=0.15)


def test_a_faster_pan_gives_more_frames_and_the_frame_rate_does_not_matter(tmp_path: Path) -> None:
    settings = SelectionSettings(spacing=0.1)
    slow = select_frames(clip(tmp_path / "slow.mp4", lambda t: 0.2 * t, 2.0), settings=settings)
    fast = select_frames(clip(tmp_path / "fast.mp4", lambda t: 0.8 * t, 2.0), settings=settings)
    smooth = select_frames(clip(tmp_path / "smooth.mp4", lambda t: 0.2 * t, 2.0, fps=60), settings=settings)
    assert len(fast) > 2 * len(slow)
    assert abs(len(smooth) - len(slow)) <= 1


def test_the_sharpest_of_each_stretch_is_taken(tmp_path: Path) -> None:
    """Only every fifth picture is sharp."""
    path = clip(tmp_path / "a.mp4", lambda t: 0.15 * t, 4.0, blurred=lambda t: 0 if round(15 * t) % 5 == 2 else 5)
    frames = select_frames(path, settings=SelectionSettings(spacing=0.1))
    assert len(frames) >= 4
    assert {round(15 * frame.time_s) % 5 for frame in frames} == {2}


def test_the_blurred_pictures_of_a_fast_pan_are_never_taken(tmp_path: Path) -> None:
    def x_of(t: float) -> float:
        return 0.1 * t + 1.5 * np.clip(t - 1.5, 0, 1)

    path = clip(tmp_path / "a.mp4", x_of, 4.0, blurred=lambda t: 12 if 1.5 < t < 2.5 else 0)
    frames = select_frames(path, settings=SelectionSettings(spacing=0.1))
    assert not [frame for frame in frames if 1.55 < frame.time_s < 2.45]
    assert [frame for frame in frames if frame.time_s < 1.5]
    assert [frame for frame in frames if frame.time_s > 2.5]


def test_a_still_camera_in_a_shaking_hand_gives_few_frames(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", lambda t: 0.02 * np.sin(9 * t), 6.0)
    settings = SelectionSettings(longest_gap_s=2.0)
    assert len(select_frames(path, settings=settings)) == 3
    assert len(select_frames(path, settings=replace(settings, fewest=5))) == 5


def test_the_number_of_frames_is_limited_and_the_choice_repeatable(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", lambda t: t, 4.0)
    settings = SelectionSettings(spacing=0.05, most=6)
    first, second = (select_frames(path, settings=settings) for _ in range(2))
    assert 3 <= len(first) <= 6
    assert first[-1].time_s - first[0].time_s > 2, "spread over the clip"
    assert [frame.time_s for frame in first] == [frame.time_s for frame in second]
    assert all((a.image == b.image).all() for a, b in zip(first, second, strict=True))


def test_neighbours_across_a_boundary_are_not_both_taken() -> None:
    looks = [
        Look(time_s=0.0, sharpness=-6.0, stretch=0, path=0.0),
        Look(time_s=0.1, sharpness=-5.0, stretch=0, path=0.079),
        Look(time_s=0.2, sharpness=-4.9, stretch=1, path=0.081),
        Look(time_s=0.3, sharpness=-5.1, stretch=2, path=0.17),
    ]
    assert [look.time_s for look in chosen(looks, SelectionSettings(fewest=1, soft=2))] == [0.2, 0.3]


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        SelectionSettings(spacing=0.0)
    with pytest.raises(ValueError, match="fewest"):
        SelectionSettings(fewest=5, most=3)


def crowd(root: Path) -> CaptureSet:
    """One UE with a clip that can be read and one that cannot, one UE with a clip of the same name."""
    gps = GpsFix(position=(1.0, 2.0, 3.0), accuracy_m=4.0, heading=1.0)
    clips = {"ue1": ["ue1/a.mp4", "ue1/broken.mp4"], "ue2": ["ue2/a.mp4"]}
    for ue in clips:
        (root / ue).mkdir(parents=True)
        clip(root / ue / "a.mp4", lambda t: 0.3 * t, 2.0)
    (root / "ue1/broken.mp4").write_bytes(b"not a video")
    return CaptureSet(
        root=root,
        name="crowd",
        licence="CC0-1.0",
        origin_wgs84=None,
        captures=tuple(
            Capture(
                ue=ue,
                device="phone",
                consent=Consent(train=True, publish=True),
                licence="CC0-1.0",
                photos=(),
                clips=tuple(Clip(file=file, time_s=100.0, gps=gps, focal_px=140.0) for file in files),
            )
            for ue, files in clips.items()
        ),
    )


@pytest.mark.row("S22")
@pytest.mark.row("S62")
def test_clips_become_photos_with_their_times_places_and_focal_lengths(tmp_path: Path) -> None:
    captures = photos_from_clips(crowd(tmp_path), progress=False)
    assert [row.file for row in captures.source.left_out] == ["ue1/broken.mp4"]
    assert all(len(capture.photos) >= 3 for capture in captures.captures)
    for photo in captures.photos:
        with Image.open(captures.path_of(photo.file)) as image:
            assert image.size == (photo.width, photo.height) == (WIDTH, HEIGHT)
            image.load()
        assert photo.from_clip in ("ue1/a.mp4", "ue2/a.mp4")
        assert 100.0 <= photo.time_s < 102.0
        assert photo.focal_px == 140.0
        assert photo.gps is not None
        assert photo.gps.position == (1.0, 2.0, 3.0)
        assert photo.gps.heading is None, "the camera has turned since"
    assert len(captures.captures[0].clips) == 2
    write_captures(captures, tmp_path)
    assert photos_from_clips(captures, progress=False).photos == captures.photos, "done once"


def test_the_place_of_a_clip_with_a_full_pose_is_kept() -> None:
    """Its attitude is not: the phone has turned since."""
    pose = ((1.0, 0.0, 0.0, 4.0), (0.0, 1.0, 0.0, 5.0), (0.0, 0.0, 1.0, 6.0))
    clip = Clip(file="a.mp4", time_s=10.0, reported=ReportedPose(camera_to_world=pose))
    frame = SelectedFrame(time_s=0.5, image=torch.zeros(30, 40, 3, dtype=torch.uint8), sharpness=-5.0, motion=0.0)
    photo = photo_of_frame(frame, clip, "a.jpg")
    assert (photo.width, photo.height, photo.time_s, photo.reported) == (40, 30, 10.5, None)
    assert photo.gps is not None
    assert photo.gps.position == (4.0, 5.0, 6.0)


def test_what_is_less_sharp_than_what_shows_the_same_is_blurred() -> None:
    """Slow, a swing, slow, and a part of the scene that has less detail: only the swing is left out."""
    slow, swing, again = np.linspace(0.0, 0.1, 15), np.linspace(0.12, 0.5, 5), np.linspace(0.52, 0.6, 15)
    plain = np.linspace(2.0, 2.4, 15)
    sharpness = [-4.8] * 15 + [-5.6] * 5 + [-4.8] * 15 + [-5.6] * 15
    looks = [
        Look(time_s=index / 15, sharpness=sharp, stretch=int(path / 0.08), path=float(path))
        for index, (path, sharp) in enumerate(zip(np.concatenate([slow, swing, again, plain]), sharpness, strict=True))
    ]
    taken = chosen(looks, SelectionSettings())
    assert [look for look in taken if 0.12 <= look.path <= 0.5] == []
    assert [look for look in taken if look.path < 0.12]
    assert len([look for look in taken if look.path >= 2]) >= 3
    believing = chosen(looks, SelectionSettings(softer=np.inf))
    assert [look for look in believing if 0.12 <= look.path <= 0.5]
