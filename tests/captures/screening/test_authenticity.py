"""What tells a photo from a drawing, an edited picture and a photo of a display; and real photos pass all of it."""

import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from crowdnerf_lab.captures.bundle import concert
from crowdnerf_lab.captures.photos import read_photo
from crowdnerf_lab.captures.screening import constructed_attacks as attacks
from crowdnerf_lab.captures.screening.authenticity import (
    authenticity_of,
    drawn_fraction,
    framed_fraction,
    grid_strength,
)
from crowdnerf_lab.captures.screening.screen import ScreeningLimits

LIMITS = ScreeningLimits()
DRAWINGS = {
    "screenshot": attacks.screenshot(),
    "dark screenshot": attacks.screenshot(dark=True),
    "page": attacks.text_page(),
    "chart": attacks.chart(),
    "gradient": attacks.gradient(),
    "code": attacks.code(),
    "colour bars": attacks.colour_bars(),
    "cartoon": attacks.cartoon(),
    "black": attacks.plain(0),
    "grey": attacks.plain(120),
    "white": attacks.plain(255),
}
PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg")


def bundled(name: str) -> np.ndarray:
    """A photo that scikit-image ships."""
    return np.array(Image.open(Path(skimage.data.__file__).parent / name).convert("RGB"))


@pytest.fixture(scope="module")
def coffee() -> np.ndarray:
    return bundled("coffee.png")


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("quality", [None, 90, 70])
def test_drawings_are_drawn_also_after_jpeg(name, quality):
    drawing = DRAWINGS[name]
    assert drawn_fraction(attacks.as_jpeg(drawing, quality=quality) if quality else drawing) > LIMITS.drawn


@pytest.mark.parametrize("name", ["screenshot", "dark screenshot", "page", "chart", "gradient", "colour bars"])
def test_drawings_are_drawn_also_at_half_the_size(name):
    half = attacks.resized(DRAWINGS[name], longer_side=max(DRAWINGS[name].shape) // 2)
    assert drawn_fraction(attacks.as_jpeg(half)) > LIMITS.drawn


@pytest.mark.parametrize("name", PHOTOS)
def test_real_photos_pass_everything(name):
    found = authenticity_of(torch.from_numpy(bundled(name)))
    assert found.drawn < LIMITS.drawn / 3
    assert found.framed == 0
    assert found.grid < LIMITS.grid_db - 3


def test_a_dark_photo_is_not_drawn_for_its_black():
    captures = concert()
    darkest = min(captures.photos, key=lambda photo: photo.truth.exposure_ev if photo.truth else 0.0)
    assert drawn_fraction(read_photo(captures.path_of(darkest.file)).numpy()) < 0.05
    lit = np.zeros((256, 256, 3), dtype=np.uint8)
    lit[64:128, 64:128] = attacks.noisy(np.full((64, 64, 3), 120, dtype=np.uint8), deviation=4)
    assert drawn_fraction(lit) < 0.05


def test_a_photo_pasted_on_a_flat_page_counts_by_its_share(coffee):
    for share in (0.25, 0.5, 0.75):
        page = np.full((480, 640, 3), 250, dtype=np.uint8)
        rows = round(480 * share / 16) * 16
        page[:rows] = np.pad(coffee, ((0, 80), (0, 40), (0, 0)), mode="reflect")[:rows]
        assert drawn_fraction(page) == pytest.approx(1 - share, abs=0.05)


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_bars_are_measured_whatever_their_colour_and_side(coffee, value, fraction):
    across = attacks.letterboxed(coffee, fraction=fraction, value=value)
    upright = attacks.letterboxed(coffee.swapaxes(0, 1), fraction=fraction, value=value).swapaxes(0, 1)
    for boxed in (across, upright):
        assert framed_fraction(boxed) == pytest.approx(fraction, abs=0.01)
    assert LIMITS.framed < framed_fraction(attacks.as_jpeg(across, quality=75)) <= fraction + 0.01


def test_one_bar_is_enough(coffee):
    captioned = np.concatenate([np.full((60, 600, 3), 255, dtype=np.uint8), coffee])
    assert framed_fraction(captioned) == pytest.approx(60 / 460, abs=0.01)


def test_a_dark_ceiling_that_ends_where_things_stand_is_no_bar(coffee):
    ceiling = coffee.copy()
    skyline = 60 + 40 * np.sin(np.arange(600) / 40)
    ceiling[np.arange(400)[:, None] < skyline] = 0
    assert framed_fraction(ceiling) == 0
    assert framed_fraction(np.zeros((50, 50, 3), dtype=np.uint8)) == 0


@pytest.mark.parametrize("pitch", [2.2, 3.1, 4.4])
@pytest.mark.parametrize("turn", [0.0, 2.0, 7.0])
def test_the_grid_of_a_display_stands_out(coffee, pitch, turn):
    shown = attacks.as_jpeg(attacks.shown_on_display(coffee, pitch=pitch, turn=math.radians(turn)), quality=90)
    assert grid_strength(shown) > LIMITS.grid_db + 3


def test_a_display_too_fine_for_the_camera_leaves_nothing(coffee):
    assert grid_strength(attacks.shown_on_display(coffee, pitch=0.7, blur=1.1)) < LIMITS.grid_db


def test_a_grid_in_a_part_of_the_picture_is_no_display(coffee):
    fence = coffee.copy()
    fence[:, :200:3] = 0
    fence[::3, :200] = 0
    assert grid_strength(fence) < LIMITS.grid_db


def test_the_lattice_of_jpeg_is_no_grid(coffee):
    assert grid_strength(attacks.as_jpeg(coffee, quality=15)) < LIMITS.grid_db


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 40), (64, 64), (130, 1)])
def test_tiny_pictures_are_measured_without_a_word(size):
    found = authenticity_of(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)))
    assert found.grid == 0
    assert 0 <= found.drawn <= 1
    assert 0 <= found.framed <= 1


def test_large_pictures_are_sampled_and_measure_the_same(coffee):
    large = np.tile(coffee, (5, 5, 1))
    assert drawn_fraction(large) == pytest.approx(drawn_fraction(coffee), abs=0.02)
    half_drawn = large.copy()
    half_drawn[:, large.shape[1] // 2 :] = 200
    assert drawn_fraction(half_drawn) == pytest.approx(0.5, abs=0.05)
