"""The bundled concert is complete and what its README says; its generator's arithmetic, which needs no renderer."""

import hashlib
import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from crowdnerf_lab.captures.bundle import CaptureSet, concert, write_captures

DATA = Path(__file__).resolve().parent.parent / "data"
CONCERT = DATA / "concert"
PICTURE_FOLDERS = ("train", "train_clean", "mask", "test", "depth", "dyn")


@pytest.fixture(scope="module")
def captures() -> CaptureSet:
    return concert()


@pytest.fixture(scope="module", autouse=True)
def _generator_on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CONCERT / "generate")
        yield


def generator(name: str) -> ModuleType:
    return importlib.import_module(name)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_every_file_has_its_checksum() -> None:
    lines = (CONCERT / "SHA256SUMS").read_text().splitlines()
    recorded = {name: checksum for checksum, name in (line.split("  ") for line in lines)}
    pictures = {f"{folder}/{path.name}" for folder in PICTURE_FOLDERS for path in (CONCERT / folder).iterdir()}
    assert recorded.keys() == pictures | {"manifest.json"}
    actual = {name: hashlib.sha256((CONCERT / name).read_bytes()).hexdigest() for name in recorded}
    assert actual == recorded


def test_the_licence_is_the_same_everywhere(captures: CaptureSet) -> None:
    assert {captures.licence, *(capture.licence for capture in captures.captures)} == {"CC0-1.0"}
    assert "CC0 1.0 Universal" in (CONCERT / "LICENSE").read_text()
    for readme in (DATA / "README.md", CONCERT / "README.md"):
        text = readme.read_text()
        assert "CC0-1.0" in text
        assert "CC-BY" not in text


@pytest.mark.row("S11")
def test_counts_are_those_of_the_readme(captures: CaptureSet) -> None:
    assert len(captures.captures) == 48
    assert {len(capture.photos) for capture in captures.captures} == {3}
    assert all(capture.consent.train and capture.consent.publish for capture in captures.captures)
    faults = Counter(photo.truth.spoiled_by for photo in captures.photos if photo.truth)
    assert faults == {None: 130, "wrong": 5, "over": 3, "blur": 3, "dark": 3}
    assert sum(photo.truth.occluded > 0.05 for photo in captures.photos if photo.truth) == 75
    assert Counter(view.split for view in captures.views) == {"test": 16, "test_beyond": 4, "moment": 64}
    moments = Counter(view.time_s for view in captures.views if view.split == "moment")
    assert moments == {0.5 * step: 8 for step in range(8)}


def test_the_manifest_names_every_picture(captures: CaptureSet) -> None:
    named = {photo.file for photo in captures.photos} | {view.file for view in captures.views}
    named |= {view.depth_file for view in captures.views if view.depth_file}
    for photo in captures.photos:
        assert photo.truth
        named |= {photo.truth.clean_file, photo.truth.occluder_mask_file}
    assert named == {f"{folder}/{path.name}" for folder in PICTURE_FOLDERS for path in (CONCERT / folder).iterdir()}


def test_pictures_have_the_size_that_the_manifest_says(captures: CaptureSet) -> None:
    def size_of(file: str | None) -> tuple[int, int]:
        assert file
        with Image.open(captures.path_of(file)) as picture:
            return picture.size

    for photo in captures.photos:
        assert photo.truth
        files = photo.file, photo.truth.clean_file, photo.truth.occluder_mask_file
        assert {size_of(file) for file in files} == {(photo.width, photo.height)}
    for view in captures.views:
        files = (view.file, view.depth_file) if view.depth_file else (view.file,)
        assert {size_of(file) for file in files} == {(view.width, view.height)}


def test_masks_cover_the_part_that_the_manifest_says(captures: CaptureSet) -> None:
    for photo in captures.photos:
        assert photo.truth
        mask = pixels_of(captures.path_of(photo.truth.occluder_mask_file or ""))
        assert np.isin(mask, (0, 255)).all()
        assert (mask == 255).mean() == pytest.approx(photo.truth.occluded)


def test_depth_is_in_millimetres(captures: CaptureSet) -> None:
    depths = [pixels_of(captures.path_of(view.depth_file)) for view in captures.views if view.depth_file]
    assert {depth.dtype for depth in depths} == {np.dtype(np.uint16)}
    seen = np.concatenate([depth[depth > 0] for depth in depths])
    assert 300 < seen.min() < 3_000
    assert 40_000 < seen.max() <= 65_000


def test_exif_agrees_with_the_manifest(captures: CaptureSet) -> None:
    for capture in captures.captures:
        for photo in capture.photos:
            assert photo.focal_px
            with Image.open(captures.path_of(photo.file)) as picture:
                exif = picture.getexif()
            assert exif[ExifTags.Base.Model] == capture.device
            focal_35mm = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm]
            assert focal_35mm == pytest.approx(photo.focal_px / max(photo.width, photo.height) * 36, abs=0.5)


def test_writing_the_manifest_again_changes_nothing(captures: CaptureSet, tmp_path: Path) -> None:
    assert write_captures(captures, tmp_path).read_bytes() == (CONCERT / "manifest.json").read_bytes()


def test_the_generator_draws_the_bundled_crowd(captures: CaptureSet) -> None:
    viewpoints, rng = generator("viewpoints"), np.random.default_rng(2026)
    phones = viewpoints.crowd_of_phones(48, rng)
    assert [phone.device for phone in phones] == [capture.device for capture in captures.captures]
    for shot, photo in zip(viewpoints.shots(phones, rng, size=320), captures.photos, strict=True):
        assert photo.truth
        assert photo.reported
        assert f"train/{shot.name}.jpg" == photo.file
        assert shot.spoiling.spoiled_by == photo.truth.spoiled_by
        assert shot.spoiling.blur_px == pytest.approx(photo.truth.blur_px)
        assert shot.spoiling.exposure_ev == pytest.approx(photo.truth.exposure_ev)
        np.testing.assert_allclose(shot.viewpoint.camera_to_world, photo.truth.camera_to_world, atol=1e-12)
        np.testing.assert_allclose(shot.reported_camera_to_world, photo.reported.camera_to_world, atol=1e-12)
    drawn = (*viewpoints.comparison_views(phones, size=320), *viewpoints.moments(phones, size=256))
    for view, bundled in zip(drawn, captures.views, strict=True):
        assert bundled.file.endswith((f"test/{view.name}.png", f"dyn/{view.name}.jpg"))
        assert view.viewpoint.focal_px == pytest.approx(bundled.focal_px)
        np.testing.assert_allclose(view.viewpoint.camera_to_world, bundled.camera_to_world, atol=1e-12)


@given(st.integers(0, 10_000), st.floats(-20, 20), st.floats(-20, -5), st.floats(-3, 3))
def test_reported_poses_stay_rotations(seed: int, east: float, north: float, roll: float) -> None:
    viewpoints, rng = generator("viewpoints"), np.random.default_rng(seed)
    phone = viewpoints.crowd_of_phones(1, rng)[0]
    pose = viewpoints.look_at(np.array([east, north, 1.7]), viewpoints.BAND, roll=roll)
    rotation = viewpoints.reported_pose(pose, phone, rng)[:, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    turned = np.degrees(np.arccos((np.trace(rotation @ pose[:, :3].T) - 1) / 2))
    assert turned < 45


def test_look_at_puts_the_target_in_the_middle_and_up_in_the_picture_up() -> None:
    viewpoints, eye = generator("viewpoints"), np.array([3.0, -12.0, 1.8])
    pose = viewpoints.look_at(eye, viewpoints.BAND)
    in_camera = pose[:, :3].T @ (viewpoints.BAND - eye)
    np.testing.assert_allclose(in_camera[:2], 0, atol=1e-12)
    assert in_camera[2] == pytest.approx(np.linalg.norm(viewpoints.BAND - eye))
    assert (pose[:, :3].T @ [0, 0, 1])[1] < 0


@given(st.floats(0, 50), st.floats(1e-3, 50))
def test_the_tone_curve_rises(radiance: float, more: float) -> None:
    phones = generator("phones")
    dark, bright = phones.tone_curve(np.array([radiance, radiance + more]))
    assert 0 <= dark <= bright <= 1
    assert dark < bright or bright == 1


@given(st.floats(-4, 3), st.floats(0.2, 3))
def test_more_exposure_is_brighter(exposure_ev: float, stops: float) -> None:
    phones = generator("phones")
    radiance = np.random.default_rng(0).uniform(0.01, 0.5, (6, 8, 3))
    less, more = (phones.developed(radiance, exposure_ev=ev) for ev in (exposure_ev, exposure_ev + stops))
    assert (more >= less).all()
    assert more.mean() > less.mean()


def test_white_balance_scales_its_own_channel() -> None:
    phones = generator("phones")
    radiance = np.full((2, 2, 3), 0.2)
    exposed = phones.exposed_by(radiance, exposure_ev=1.0, white_balance=(1.0, 0.5, 2.0))
    np.testing.assert_allclose(exposed, radiance * [2.0, 1.0, 4.0])


@given(st.floats(1, 18), st.floats(0, np.pi))
def test_motion_blur_spreads_a_point_along_its_direction(length: float, angle: float) -> None:
    phones = generator("phones")
    point = np.zeros((41, 41, 3))
    point[20, 20] = 1
    blurred = phones.motion_blurred(point, length=length, angle=angle)
    assert blurred.sum() == pytest.approx(3)
    down, right = np.nonzero(blurred[..., 0] > 1e-9)
    off_line = np.abs((right - 20) * np.sin(angle) - (down - 20) * np.cos(angle))
    assert off_line.max() < 0.75
    assert np.hypot(right - 20, down - 20).max() <= length / 2 + 0.75


def test_a_still_hand_changes_nothing() -> None:
    phones = generator("phones")
    picture = np.random.default_rng(0).random((5, 7, 3))
    np.testing.assert_array_equal(phones.motion_blurred(picture, length=0.5, angle=1.0), picture)


def test_the_vignette_darkens_the_corners_only() -> None:
    phones = generator("phones")
    falloff = phones.vignetted(np.ones((5, 7, 3)))
    assert falloff[2, 3] == pytest.approx(1)
    assert falloff[0, 0] == pytest.approx(1 - phones.VIGNETTE)


def test_noise_has_the_variance_that_its_docstring_says() -> None:
    phones = generator("phones")
    noise = np.random.default_rng(0).normal(size=(200, 200, 3))
    grain, signal = 0.01, 0.5
    noisy = phones.noisy(np.full_like(noise, signal), grain=grain, noise=noise)
    assert noisy.mean() == pytest.approx(signal, abs=1e-3)
    assert noisy.var() == pytest.approx(grain * signal + (1.2 * grain) ** 2, rel=0.02)


@pytest.mark.parametrize(("fault", "factor"), [("over", 8.0), ("dark", 1 / 32)])
def test_a_fault_shifts_the_exposure(fault: str, factor: float) -> None:
    phones = generator("phones")
    habits = {"exposure_ev": 0.0, "white_balance": np.ones(3), "iso": 800, "width": 8, "height": 6}
    usual, faulty = (
        phones.drawn_spoiling(np.random.default_rng(0), spoiled_by=spoiled_by, **habits) for spoiled_by in (None, fault)
    )
    assert 2 ** (faulty.exposure_ev - usual.exposure_ev) == pytest.approx(factor)


def volume_of(mesh) -> float:
    """Volume inside a closed mesh whose triangles turn counter-clockwise seen from outside (divergence theorem)."""
    corners = mesh.vertices[mesh.triangles]
    return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))) / 6


def test_solids_are_closed_and_have_their_volume() -> None:
    geometry = generator("geometry")
    box, ball, cylinder = (geometry.MeshBuilder() for _ in range(3))
    box.box((1.0, 2.0, 3.0), (0.5, 1.5, 2.0), colour=(1, 1, 1), yaw=0.7, pitch=-0.3)
    ball.ball((4.0, -1.0, 2.0), 0.5, colour=(1, 1, 1), sides=64)
    cylinder.cylinder((0, 0, 0), (1.0, 2.0, 2.0), 0.25, colour=(1, 1, 1), sides=64)
    assert abs(volume_of(box.mesh())) == pytest.approx(1.5)
    assert abs(volume_of(ball.mesh())) == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.1)
    assert abs(volume_of(cylinder.mesh())) == pytest.approx(3 * np.pi * 0.25**2, rel=0.01)


def test_nobody_stands_in_front_of_a_lens() -> None:
    people = generator("people")
    lenses = np.array([[0.0, -12.0, 1.7]])
    assert people.blocks_a_lens((0.1, -12.2, 0.0), lenses)
    assert people.blocks_a_lens((0.0, -10.0, 0.0), lenses)
    assert not people.blocks_a_lens((0.0, -14.0, 0.0), lenses)
    assert not people.blocks_a_lens((1.0, -10.0, 0.0), lenses)
    assert not people.blocks_a_lens((0.0, -10.0, 3.0), lenses)


@pytest.mark.parametrize("time", [0.0, 1.5])
def test_the_stage_is_built_at_any_moment(time: float) -> None:
    lights, stage = generator("lights"), generator("stage")
    lamps = lights.spotlights(time)
    np.testing.assert_allclose([np.linalg.norm(lamp.axis) for lamp in lamps], 1)
    matte, metal = stage.stage_solids(lamps)
    for mesh in (matte.mesh(), metal.mesh()):
        assert mesh.triangles.max() < len(mesh.vertices) == len(mesh.colours)
        assert np.isfinite(mesh.vertices).all()
    assert stage.screen_radiance(time).max() <= stage.SCREEN_RADIANCE


def test_a_missing_extra_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = generator("requirements")
    monkeypatch.setattr(requirements, "find_spec", lambda module: None if module == "mitsuba" else sys)
    with pytest.raises(requirements.RequirementError, match=r'mitsuba not found; pip install "crowdnerf-lab\[synth'):
        requirements.check_requirements()


def test_a_missing_llvm_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requirements = generator("requirements")
    monkeypatch.setattr(requirements, "find_spec", lambda _: sys)
    monkeypatch.setenv(requirements.LLVM_VARIABLE, str(tmp_path / "libLLVM.so"))
    with pytest.raises(requirements.RequirementError, match=r"no LLVM at .*libLLVM.so; apt-get install libllvm19"):
        requirements.check_requirements()
