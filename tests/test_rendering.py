"""Volume rendering by its properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.rendering import composite, transmittance, weights

densities = st.lists(st.floats(0, 20, width=32), min_size=1, max_size=12)


def edges_of(count: int) -> torch.Tensor:
    return torch.linspace(1.0, 3.0, count + 1) ** 1.5


@given(densities)
def test_weights_sum_to_opacity_and_transmittance_falls(values: list[float]) -> None:
    density, t = torch.tensor([values]), edges_of(len(values))[None]
    light = transmittance(density, t)
    assert light[0, 0] == 1
    assert (light.diff() <= 1e-6).all()
    optical = float((density * t.diff()).sum())
    assert float(weights(density, t).sum()) == pytest.approx(1 - math.exp(-optical), abs=1e-5)


@given(densities, st.integers(0, 11))
def test_splitting_an_interval_changes_nothing(values: list[float], where: int) -> None:
    where = where % len(values)
    t = edges_of(len(values))
    middle = (t[where] + t[where + 1]) / 2
    finer_t = torch.cat([t[: where + 1], middle[None], t[where + 1 :]])
    finer = [*values[: where + 1], values[where], *values[where + 1 :]]
    colour = torch.linspace(0.1, 0.9, len(values))[:, None].expand(-1, 3)
    finer_colour = torch.cat([colour[: where + 1], colour[where:]])
    black = torch.zeros(3)
    whole = composite(torch.tensor([values]), colour[None], t[None], black)
    split = composite(torch.tensor([finer]), finer_colour[None], finer_t[None], black)
    torch.testing.assert_close(whole.colour, split.colour, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.opacity, split.opacity, atol=1e-5, rtol=1e-5)


def test_empty_space_shows_the_background_and_a_wall_hides_it() -> None:
    t = edges_of(4)[None]
    background = torch.tensor([0.2, 0.4, 0.6])
    red = torch.tensor([1.0, 0.0, 0.0]).expand(1, 4, 3)
    empty = composite(torch.zeros(1, 4), red, t, background)
    assert torch.equal(empty.colour[0], background)
    assert empty.opacity == 0
    wall = composite(torch.tensor([[0.0, 0.0, 1e4, 0.0]]), red, t, background)
    torch.testing.assert_close(wall.colour[0], red[0, 0])
    assert float(wall.depth) == pytest.approx(float((t[0, 2] + t[0, 3]) / 2))
