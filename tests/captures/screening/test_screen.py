"""Screening: what is found in the concert, a UE judged by itself, and bad files that become rows, not exceptions."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import uniform_filter1d

from crowdnerf_lab.cameras import look_at
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Consent, Photo, ReportedPose, concert
from crowdnerf_lab.captures.screening.report import LARGE_IS_BAD
from crowdnerf_lab.captures.screening.screen import ScreeningLimits, ScreeningReport, angles_to_focus, screen

SIZE = 64
EVERY_CHECK = (
    *("consent", "readable", "small", "drawn", "framed", "display"),
    *("time", "place", "direction", "dark", "over", "blur", "noise", "duplicate"),
)


@pytest.fixture(scope="module")
def screened() -> tuple[CaptureSet, CaptureSet, ScreeningReport]:
    captures = concert()
    return captures, *screen(captures, progress=False)


@pytest.mark.row("S64")
def test_the_concerts_spoiled_photos_are_found_and_good_ones_kept(screened):
    captures, kept, report = screened
    spoiled = {photo.file: photo.truth.spoiled_by for photo in captures.photos if photo.truth}
    found = [row for row in report.rejected if spoiled[row.photo]]
    assert len(found) >= 13
    assert len(report.rejected) - len(found) <= 2
    same_name = {"blur": "blur", "over": "over", "dark": "dark", "wrong": "direction"}
    assert sum(row.check == same_name[spoiled[row.photo]] for row in found) >= 13
    assert [photo.file for photo in kept.photos] == list(report.kept)


def test_one_photo_a_ue_is_judged_by_the_crowd_alone(screened):
    captures = screened[0]
    alone = tuple(capture.model_copy(update={"photos": capture.photos[:1]}) for capture in captures.captures)
    _, report = screen(replace(captures, captures=alone), progress=False)
    spoiled = {capture.photos[0].file for capture in alone if capture.photos[0].truth.spoiled_by}
    found = {row.photo for row in report.rejected}
    assert len(found & spoiled) >= len(spoiled) - 1
    assert len(found - spoiled) <= 4


@pytest.mark.row("S64")
def test_truth_is_never_looked_at(screened):
    captures = screened[0]
    blind = replace(
        captures,
        captures=tuple(
            capture.model_copy(
                update={"photos": tuple(photo.model_copy(update={"truth": None}) for photo in capture.photos)}
            )
            for capture in captures.captures[:12]
        ),
    )
    seen = replace(captures, captures=captures.captures[:12])
    blind_report, seen_report = screen(blind, progress=False)[1], screen(seen, progress=False)[1]
    np.testing.assert_equal(
        [(row.photo, row.check, row.measured, row.threshold) for row in blind_report.rows],
        [(row.photo, row.check, row.measured, row.threshold) for row in seen_report.rows],
    )


def test_every_photo_has_every_check_with_its_measurement_and_threshold(screened):
    captures, _, report = screened
    checks = Counter(row.photo for row in report.rows)
    assert set(checks.values()) == {len(report.checks)}
    assert report.checks == EVERY_CHECK
    assert list(checks) == [photo.file for photo in captures.photos]
    for row in report.rows:
        assert row.path.is_file()
        assert math.isfinite(row.measured)
        assert math.isfinite(row.threshold)
        high_is_bad = row.check in LARGE_IS_BAD
        assert row.kept == (row.measured <= row.threshold if high_is_bad else row.measured >= row.threshold)
        assert bool(row.reason) != row.kept
    assert report.summary().startswith(f"kept {len(report.kept)} of 144 photos, rejected ")


def picture(*, seed: int = 0, gain: float = 1.0, blur: int = 1) -> np.ndarray:
    """Blocks with edges in both directions, some of them white at gain 1."""
    blocks = np.random.default_rng(seed).uniform(0.1, 1.0, (SIZE // 8, SIZE // 8, 3))
    sharp = np.kron(blocks, np.ones((8, 8, 1)))
    return np.rint(uniform_filter1d(sharp, blur, axis=1) * gain * 255).clip(0, 255).astype(np.uint8)


def event(root: Path, ues: dict[str, list[np.ndarray]], *, turned: dict[str, float] | None = None) -> CaptureSet:
    """UEs around the origin that look at it; turned: radians by which a photo ('ue/index') looks past it."""
    captures = []
    for place, (ue, pictures) in enumerate(ues.items()):
        photos = []
        for index, pixels in enumerate(pictures):
            file = f"{ue}/{index}.png"
            (root / ue).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / file)
            azimuth = 0.3 * place + 0.01 * index
            eye = torch.tensor([10 * math.cos(azimuth), 10 * math.sin(azimuth), 1.5])
            past = azimuth + math.pi + (turned or {}).get(file.removesuffix(".png"), 0.0)
            pose = look_at(eye, eye + 10 * torch.tensor([math.cos(past), math.sin(past), 0.0]))
            photos.append(
                Photo(
                    file=file,
                    width=SIZE,
                    height=SIZE,
                    focal_px=50.0,
                    time_s=0.0,
                    reported=ReportedPose(camera_to_world=pose.tolist()),
                )
            )
        consent = Consent(train=True, publish=True)
        captures.append(Capture(ue=ue, device="Example 1", consent=consent, licence="CC0-1.0", photos=tuple(photos)))
    return CaptureSet(root=root, name="event", licence="CC0-1.0", origin_wgs84=None, captures=tuple(captures))


def rejections(captures: CaptureSet, **options) -> dict[str, str]:
    _, report = screen(captures, progress=False, **options)
    return {row.photo: row.check for row in report.rejected}


def good(seed: int = 0, count: int = 3) -> list[np.ndarray]:
    return [picture(seed=seed + index) for index in range(count)]


def crowd(count: int = 6) -> dict[str, list[np.ndarray]]:
    return {f"crowd{index}": good(10 * index) for index in range(count)}


def test_good_photos_stay(tmp_path):
    captures = event(tmp_path, crowd())
    kept, report = screen(captures, progress=False)
    assert kept == captures
    assert report.rejected == ()
    assert report.summary() == "kept 18 of 18 photos"


def test_each_fault_is_called_by_its_name(tmp_path):
    faults = {
        "dark": [*good(101, 2), picture(seed=103, gain=0.2)],
        "over": [*good(111, 2), picture(seed=113, gain=2.5)],
        "soft": [*good(121, 2), picture(seed=123, blur=17)],
        "away": good(131),
    }
    captures = event(tmp_path, crowd() | faults, turned={"away/1": 2.0})
    expected = {"dark/2.png": "dark", "over/2.png": "over", "soft/2.png": "blur", "away/1.png": "direction"}
    assert rejections(captures) == expected


def test_a_phone_that_is_dark_soft_and_turned_as_a_whole_is_kept(tmp_path):
    odd = {
        "dim": [picture(seed=100 + index, gain=0.2) for index in range(3)],
        "soft": [picture(seed=110 + index, blur=17) for index in range(3)],
        "compass": good(120),
    }
    turned = {f"compass/{index}": 0.7 for index in range(3)}
    assert rejections(event(tmp_path, crowd() | odd, turned=turned)) == {}


def test_a_lone_photo_is_judged_by_the_crowd(tmp_path):
    lone = {
        "dim": [picture(seed=100, gain=0.05)],
        "soft": [picture(seed=101, blur=33)],
        "away": [picture(seed=102)],
        "fine": [picture(seed=103)],
    }
    found = rejections(event(tmp_path, crowd() | lone, turned={"away/0": 2.0}))
    assert found == {"dim/0.png": "dark", "soft/0.png": "blur", "away/0.png": "direction"}


def test_what_fails_one_check_is_no_yardstick_for_the_next(tmp_path):
    # Noise in the dark photo looks sharp; beside it alone, the good photo would look soft.
    noisy = np.random.default_rng(0).integers(0, 40, (SIZE, SIZE, 3), dtype=np.uint8)
    found = rejections(event(tmp_path, crowd() | {"pair": [picture(seed=100, blur=3), noisy]}))
    assert found == {"pair/1.png": "dark"}


def test_limits_are_arguments(tmp_path):
    captures = event(tmp_path, crowd() | {"dim": [*good(101, 2), picture(seed=103, gain=0.2)]})
    assert rejections(captures, limits=ScreeningLimits(dark=20.0)) == {}
    assert rejections(captures) == {"dim/2.png": "dark"}


@pytest.mark.row("S63")
def test_photos_without_consent_are_left_out_unread(tmp_path):
    captures = event(tmp_path, crowd())
    refusing = captures.captures[0].model_copy(update={"consent": Consent(train=False, publish=True)})
    captures = replace(captures, captures=(refusing, *captures.captures[1:]))
    (tmp_path / "crowd0" / "0.png").write_bytes(b"")
    kept, report = screen(captures, progress=False)
    assert [capture.ue for capture in kept.captures] == [f"crowd{index}" for index in range(1, 6)]
    assert {row.photo: row.check for row in report.rejected} == {f"crowd0/{i}.png": "consent" for i in range(3)}
    assert all("does not consent" in row.reason for row in report.rejected)


@pytest.mark.row("S64")
def test_unreadable_photos_become_rows_and_the_rest_goes_on(tmp_path):
    captures = event(tmp_path, crowd())
    whole = (tmp_path / "crowd0" / "0.png").read_bytes()
    (tmp_path / "crowd0" / "0.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "crowd1" / "1.png").write_bytes(b"")
    Image.new("RGB", (SIZE // 2, SIZE)).save(tmp_path / "crowd2" / "2.png")
    (tmp_path / "crowd3" / "0.png").unlink()
    kept, report = screen(captures, progress=False)
    reasons = {row.photo: row.reason for row in report.rejected}
    assert {row.check for row in report.rejected} == {"readable"}
    assert "damaged or cut short" in reasons["crowd0/0.png"]
    assert "is empty" in reasons["crowd1/1.png"]
    assert "32x64, its manifest says 64x64" in reasons["crowd2/2.png"]
    assert "does not exist" in reasons["crowd3/0.png"]
    assert len(kept.photos) == 14


def test_without_poses_only_the_pictures_are_judged(tmp_path):
    captures = event(tmp_path, crowd(2))
    unposed = tuple(
        capture.model_copy(update={"photos": tuple(p.model_copy(update={"reported": None}) for p in capture.photos)})
        for capture in captures.captures
    )
    _, report = screen(replace(captures, captures=unposed), progress=False)
    directions = [row for row in report.rows if row.check == "direction"]
    assert len(directions) == 6
    assert all(row.kept and math.isnan(row.measured) for row in directions)


def test_nothing_left_is_an_empty_set(tmp_path):
    captures = event(tmp_path, {"one": [picture()]})
    (tmp_path / "one" / "0.png").write_bytes(b"")
    kept, report = screen(captures, progress=False)
    assert kept.captures == ()
    assert report.summary() == "kept 0 of 1 photos, rejected 1 readable"


def ring(count: int, *, outward: bool = False) -> torch.Tensor:
    azimuth = torch.linspace(0, 2 * math.pi, count + 1)[:-1]
    eyes = 10 * torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros(count)], dim=-1)
    return look_at(eyes, 2 * eyes if outward else torch.zeros(count, 3))


def test_a_ring_looking_in_has_its_focus_and_the_traitor_is_seen():
    poses = ring(12)
    poses[4] = look_at(poses[4, :, 3], 2 * poses[4, :, 3])
    angles = angles_to_focus(poses)
    assert angles is not None
    assert float(angles[4]) == pytest.approx(math.pi, abs=0.01)
    assert float(angles[torch.arange(12) != 4].max()) < 0.01


def test_a_crowd_that_looks_everywhere_has_no_focus():
    assert angles_to_focus(ring(12, outward=True)) is None
