import numpy as np
import pytest
import torch

from crowdnerf_lab.fields.appearance import Appearance
from crowdnerf_lab.live_rendering.modes import legend_of, modes_of, picture_of, radius_of
from crowdnerf_lab.live_rendering.sources import LiveRenderingError, source_of
from tests.toy_artefacts import random_grid, small_scene
from tests.toy_field import ToyField


def darker_second_phone() -> Appearance:
    scene = small_scene()
    appearance = Appearance(scene.capture_of_image, len(scene.captures))
    with torch.no_grad():
        appearance.log_gain[1] = -1.0
    return appearance


def hex_of(colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(part) for part in colour))


@pytest.mark.parametrize("mode", ["opacity", "uncertainty", "occupancy"])
def test_the_legend_says_what_the_colours_mean(mode):
    legend = legend_of(mode, radius=10.0)
    assert legend is not None
    ends = np.array([[[legend.low], [legend.high]]], np.float32)
    low, high = picture_of(ends, mode, radius=10.0)[0]
    assert (hex_of(low), hex_of(high)) == (legend.stops[0], legend.stops[-1])


def test_depth_is_logarithmic_and_fades_where_nothing_is():
    legend = legend_of("depth", radius=10.0)
    assert legend is not None
    assert legend.logarithmic
    middle = (legend.low * legend.high) ** 0.5
    values = np.array([[[legend.low, 1], [middle, 1], [legend.high, 1], [middle, 0]]], np.float32)
    near, between, far, nothing = picture_of(values, "depth", radius=10.0)[0]
    assert (hex_of(near), hex_of(far)) == (legend.stops[0], legend.stops[-1])
    assert np.abs(between.astype(int) - 255 * np.array([0.13, 0.57, 0.55])).max() < 8  # viridis at one half
    assert nothing.tolist() == [0, 0, 0]


def test_colours_stay_colours():
    assert picture_of(np.full((2, 3, 3), 0.5, np.float32), "colour", radius=1.0).tolist() == [[[128] * 3] * 3] * 2
    assert legend_of("colour", radius=1.0) is None
    assert legend_of("as taken", radius=1.0) is None


def test_a_photo_is_shown_as_its_phone_took_it():
    grey = np.full((4, 4, 3), 0.5, np.float32)
    appearance = darker_second_phone()
    light, dark = (
        picture_of(grey, "as taken", radius=1.0, appearance=appearance, photo=photo).mean() for photo in (0, 1)
    )
    assert dark < light - 20
    taken = appearance.as_taken(torch.from_numpy(grey), 1).numpy()
    np.testing.assert_allclose(
        picture_of(grey, "as taken", radius=1.0, appearance=appearance, photo=1), 255 * taken, atol=0.51
    )


@pytest.mark.parametrize(
    ("appearance", "photo"), [(None, 0), (darker_second_phone(), None), (darker_second_phone(), 99)]
)
def test_a_photo_that_nobody_took_is_refused(appearance, photo):
    with pytest.raises(LiveRenderingError, match=r"give the appearance .* and a row of its scene"):
        picture_of(np.zeros((1, 1, 3), np.float32), "as taken", radius=1.0, appearance=appearance, photo=photo)


def test_modes_are_those_that_the_model_has():
    source = source_of(random_grid(), scene=small_scene())
    assert modes_of(source, appearance=None) == ("colour", "depth", "opacity", "uncertainty", "occupancy")
    assert modes_of(source_of(ToyField()), appearance=darker_second_phone())[-1] == "as taken"


def test_the_radius_is_the_scenes():
    radius = pytest.approx(float(small_scene().bounds.half_size.mean()))
    assert radius_of(random_grid(), scene=None) == radius
    assert radius_of(ToyField(), scene=small_scene()) == radius
