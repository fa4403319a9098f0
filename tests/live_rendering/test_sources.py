import numpy as np
import pytest
import torch

from crowdnerf_lab.fields.baking import bake
from crowdnerf_lab.fields.frequency_mlp import FrequencyMLP, FrequencyMLPShape
from crowdnerf_lab.fields.hash_grid import HashGrid, HashGridShape
from crowdnerf_lab.live_rendering.sources import FixedPictures, LiveRenderingError, band, source_of
from crowdnerf_lab.network.ue import LocalModel
from crowdnerf_lab.network.views.view_request import ViewRequest
from crowdnerf_lab.rendering import render_view
from tests.toy_artefacts import random_grid, small_scene, untrained_student
from tests.toy_field import ToyField


def view_of(photo: int = 0, *, width: int = 48, height: int = 40) -> ViewRequest:
    cameras = small_scene().cameras[photo : photo + 1].resized(width, height)
    focal, centre = cameras.focal[0].tolist(), cameras.centre[0].tolist()
    pose = cameras.camera_to_world[0].numpy()
    return ViewRequest(pose, (focal[0], focal[1]), (centre[0], centre[1]), width, height)


def local_model() -> LocalModel:
    def draw(pose, focal, centre):
        return np.full((20, 24, 3), 0.5, np.float32) * (focal[0] / 100)

    return LocalModel(24, 20, 1, "test", draw)


def models() -> dict:
    bounds = small_scene().bounds
    small = {"occupancy_cells": 8, "steps": 16}
    return {
        "SH grid": random_grid(),
        "hash grid": HashGrid(bounds, shape=HashGridShape(resolutions=(4, 8), log2_lines=6, **small)),
        "network": FrequencyMLP(bounds, shape=FrequencyMLPShape(width=8, depth=2, coarse=8, fine=8)),
        "toy": ToyField(),
        "baked": bake(random_grid()),
        "light field": untrained_student(),
        "on a UE": local_model(),
        "truth": FixedPictures.of(small_scene(), small_scene().held_out),
    }


@pytest.mark.parametrize("name", models())
def test_bands_are_the_whole_view(name):
    source, view = source_of(models()[name], scene=small_scene()), view_of()
    for channel in source.channels:
        whole = source.rows(view, 0, 40, channel)
        numbers = {"colour": 3, "depth": 2}.get(channel, 1)
        assert whole.shape == (40, 48, numbers)
        assert whole.dtype == np.float32
        parts = [source.rows(view, first, min(first + 16, 40), channel) for first in range(0, 40, 16)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-4)


def test_a_field_is_drawn_as_it_is_rendered():
    rendered = render_view(random_grid(), view_of().cameras())
    source = source_of(random_grid(), scene=small_scene())
    depth = source.rows(view_of(), 0, 40, "depth")
    np.testing.assert_array_equal(source.rows(view_of(), 0, 40, "colour"), rendered.colour.numpy())
    np.testing.assert_array_equal(depth[..., 0], rendered.depth.numpy())
    np.testing.assert_array_equal(depth[..., 1], rendered.opacity.numpy())


def test_samples_are_counted_where_cells_are_occupied():
    grid = random_grid()
    source = source_of(grid)
    assert source.rows(view_of(), 0, 40, "occupancy").max() > 0
    emptied = type(grid)(small_scene().bounds, shape=grid.shape)
    emptied.occupied[:] = False
    assert source_of(emptied).rows(view_of(), 0, 40, "occupancy").max() == 0


def test_uncertainty_needs_photos():
    assert "uncertainty" in source_of(random_grid(), scene=small_scene()).channels
    assert "uncertainty" not in source_of(random_grid()).channels


def test_the_nearest_picture_is_shown():
    truth = FixedPictures.of(small_scene(), [0, 5, 11])
    assert [truth.nearest(view_of(photo)) for photo in (0, 5, 10)] == [0, 1, 2]
    shown = source_of(truth).rows(view_of(5), 0, 40, "colour")
    np.testing.assert_allclose(shown, small_scene().image(5).numpy(), atol=1 / 255)


def test_pictures_fill_the_view_without_being_stretched():
    picture = np.zeros((40, 48, 3), np.uint8)
    picture[:, 24:] = 255
    source = source_of(FixedPictures(small_scene().cameras[:1], [picture]))
    shown = source.rows(view_of(width=40, height=80), 0, 80, "colour")
    assert shown.shape == (80, 40, 3)
    assert shown[:, :18].max() < 0.1
    assert shown[:, 22:].min() > 0.9


def test_a_band_sees_what_its_rows_see():
    whole, part = view_of(3), band(view_of(3), 10, 25)
    rows = render_view(ToyField(), whole.cameras()).colour[10:25]
    torch.testing.assert_close(render_view(ToyField(), part.cameras()).colour, rows, atol=1e-5, rtol=0)


def test_what_cannot_be_shown_is_said():
    with pytest.raises(LiveRenderingError, match="a str cannot be shown; give a radiance field"):
        source_of("concert")  # type: ignore[arg-type]
    with pytest.raises(LiveRenderingError, match="0 pictures of 1 cameras"):
        FixedPictures(small_scene().cameras[:1], [])
