"""A crowd on one clock: real files, whose codecs delay the sound as phones' do, in every container."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason='no PyAV (pip install "crowdnerf-lab[video]")')

from crowdnerf_lab.captures.bundle import CaptureSet, Photo, ReportedPose, read_bundle, write_captures
from crowdnerf_lab.captures.clocks.constructed_sound import Hearing, Listener, clock_errors_s, write_crowd
from crowdnerf_lab.captures.clocks.synchronisation import SynchronisationReport, synchronise

STAGE = (0.0, 0.0, 0.0)
LISTENERS = (
    Listener(Hearing(5.0, 10.0, snr_db=0, echo=0.5, seed=1)),
    Listener(Hearing(6.2, 60.0, snr_db=0, echo=1.0, drift=50e-6, seed=2), clock_error_s=3.0),
    Listener(Hearing(4.1, 30.0, snr_db=-3, gain_control=True, clipped=0.03, seed=3), clock_error_s=-2.5, suffix=".mov"),
    Listener(Hearing(5.5, 80.0, snr_db=0, echo=1.0, seed=4), clock_error_s=0.7, suffix=".mkv"),
    Listener(Hearing(5.0, 20.0, seed=5), clock_error_s=1.0, deaf=True),
    Listener(Hearing(5.0, 20.0, seed=6), clock_error_s=1.0, elsewhere=True),
)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> CaptureSet:
    return write_crowd(tmp_path_factory.mktemp("crowd"), LISTENERS, seconds=7.0, rate=24_000)


@pytest.fixture(scope="module")
def synchronised(crowd: CaptureSet) -> tuple[CaptureSet, SynchronisationReport]:
    return synchronise(crowd, stage=STAGE, progress=False)


@pytest.mark.row("S11")
@pytest.mark.row("S56")
def test_clips_are_on_one_clock_to_ten_milliseconds(
    crowd: CaptureSet, synchronised: tuple[CaptureSet, SynchronisationReport]
) -> None:
    """With noise, echo, drift, different microphones, up to 80 m from the stage, AAC and Opus."""
    captures, report = synchronised
    heard = replace(captures, captures=captures.captures[:4])
    assert np.abs(clock_errors_s(replace(crowd, captures=crowd.captures[:4]), LISTENERS[:4])).max() > 2.0
    assert np.abs(clock_errors_s(heard, LISTENERS[:4])).max() < 0.010
    for row, capture in zip(report.rows[:4], captures.captures[:4], strict=True):
        assert row.method == "audio"
        assert row.confidence > 0.8
        assert capture.clock is not None
        assert (capture.clock.method, capture.clock.offset_s) == ("audio", row.offset_s)


def test_who_cannot_be_heard_keeps_the_device_clock_and_says_why(
    crowd: CaptureSet, synchronised: tuple[CaptureSet, SynchronisationReport]
) -> None:
    captures, report = synchronised
    deaf, elsewhere = report.rows[4:]
    assert deaf.reason == "its clips have no sound"
    assert "no other UE surely heard the same" in elsewhere.reason
    for row, before, after in zip(report.rows[4:], crowd.captures[4:], captures.captures[4:], strict=True):
        assert (row.method, row.offset_s, row.confidence, row.error_s) == ("device", 0.0, 0.0, None)
        assert after.clock is not None
        assert after.clock.method == "device"
        assert after.clips == before.clips
    assert report.summary().startswith("4 of 6 UEs synchronised by sound")


def test_without_distances_sound_travels_and_the_report_says_so(crowd: CaptureSet) -> None:
    """The same clips without positions: 50 m are 146 ms, and the error that is claimed covers them."""
    nowhere = replace(
        crowd,
        captures=tuple(
            capture.model_copy(update={"clips": (capture.clips[0].model_copy(update={"gps": None}),)})
            for capture in crowd.captures[:4]
        ),
    )
    captures, report = synchronise(nowhere, stage=STAGE, progress=False)
    errors = clock_errors_s(captures, LISTENERS[:4])
    assert 0.05 < np.abs(errors).max() < 0.3
    for row, error in zip(report.rows, errors, strict=True):
        assert "distance from the stage is unknown" in row.reason
        assert row.error_s is not None
        assert abs(error) < 4 * row.error_s


def test_again_changes_nothing(synchronised: tuple[CaptureSet, SynchronisationReport]) -> None:
    captures, _ = synchronised
    again, report = synchronise(captures, stage=STAGE, progress=False)
    assert max(abs(row.offset_s) for row in report.rows) < 1e-3
    for before, after in zip(captures.captures, again.captures, strict=True):
        assert before.clock is not None
        assert after.clock is not None
        assert after.clock.method == before.clock.method
        assert after.clock.offset_s == pytest.approx(before.clock.offset_s, abs=1e-3)


def test_photos_move_with_their_clips_and_the_stage_is_where_the_crowd_looks(crowd: CaptureSet, tmp_path: Path) -> None:
    """Photos that look north from three places towards one point; times survive writing and reading."""

    def photo(ue: str, x: float) -> Photo:
        turn = np.arctan2(x, 20.0)
        right, forward = (np.cos(turn), np.sin(turn), 0.0), (-np.sin(turn), np.cos(turn), 0.0)
        pose = tuple(
            (float(right[row]), float(-(row == 2)), float(forward[row]), (x, -20.0, 0.0)[row]) for row in range(3)
        )
        reported = ReportedPose(camera_to_world=pose)  # pyright: ignore[reportArgumentType]
        return Photo(file=f"{ue}/photo.jpg", width=40, height=30, focal_px=30.0, time_s=7.0, reported=reported)

    shots = tuple(
        capture.model_copy(update={"photos": (photo(capture.ue, x),)})
        for capture, x in zip(crowd.captures[:3], (-8.0, 0.0, 8.0), strict=True)
    )
    for capture in shots:
        (crowd.root / capture.photos[0].file).write_bytes(b"never opened")
    captures, report = synchronise(replace(crowd, captures=shots), progress=False)
    assert report.stage is not None
    assert np.linalg.norm(report.stage) < 0.5
    for row, capture in zip(report.rows, captures.captures, strict=True):
        assert capture.photos[0].time_s == pytest.approx(7.0 + row.offset_s)
    write_captures(captures, tmp_path / "written")
    assert read_bundle(tmp_path / "written").captures == captures.captures


def test_a_clip_that_cannot_be_read_is_a_reason(crowd: CaptureSet, tmp_path: Path) -> None:
    for capture in crowd.captures[:3]:
        target = tmp_path / capture.clips[0].file
        target.parent.mkdir(parents=True)
        target.write_bytes(crowd.path_of(capture.clips[0].file).read_bytes())
    (tmp_path / crowd.captures[0].clips[0].file).write_bytes(b"broken")
    _, report = synchronise(replace(crowd, root=tmp_path, captures=crowd.captures[:3]), stage=STAGE, progress=False)
    assert [row.method for row in report.rows] == ["device", "audio", "audio"]
    assert "clip.mp4 is no MP4" in report.rows[0].reason


def test_the_largest_group_that_heard_the_same_is_moved(tmp_path: Path) -> None:
    """Three at one stage, two at another: the two are told that they agree, and keep their clocks."""
    listeners = [
        Listener(Hearing(3.0 + 0.3 * index, 20.0, seed=index), clock_error_s=0.5 * index, elsewhere=index < 2)
        for index in range(5)
    ]
    crowd = write_crowd(tmp_path, listeners, seconds=5.0, rate=24_000)
    captures, report = synchronise(crowd, stage=STAGE, progress=False)
    assert [row.method for row in report.rows] == ["device", "device", "audio", "audio", "audio"]
    assert report.rows[0].reason.startswith("heard the same as ue01, but as nobody of the largest group")
    assert np.abs(clock_errors_s(replace(captures, captures=captures.captures[2:]), listeners[2:])).max() < 0.01
