"""Cells and the rays through them, against the house's rays through pixels."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowdnerf_lab.light_fields.light_field import cell_centres, cell_rays, cells_across
from crowdnerf_lab.rays import rays_through
from tests.toy_field import toy_cameras


@given(st.integers(1, 2000), st.sampled_from([1, 4, 8]))
def test_cells_cover_a_side_and_no_more(pixels: int, cell: int) -> None:
    cells = cells_across(pixels, cell)
    assert cell * (cells - 1) < pixels <= cell * cells


@pytest.mark.parametrize("cell", [1, 4, 8])
def test_a_cell_s_centre_is_the_mean_of_its_pixels(cell: int) -> None:
    centres = cell_centres(2, 3, cell=cell)
    assert centres[1, 2].tolist() == [2 * cell + cell / 2, cell + cell / 2]


@pytest.mark.parametrize("cell", [1, 4, 8])
@pytest.mark.parametrize("distortion", [(0.0, 0.0, 0.0, 0.0), (-0.12, 0.03, 0.002, -0.001)])
def test_cell_rays_are_the_rays_through_the_cells_centres(distortion: tuple[float, ...], cell: int) -> None:
    cameras = toy_cameras(3)
    cameras = replace(cameras, distortion=torch.tensor(distortion).expand(3, 4).clone())
    rows, columns = 5, 6
    origins, directions = cell_rays(cameras, rows, columns, cell=cell)

    index = torch.arange(3)[:, None, None].expand(3, rows, columns)
    rays = rays_through(cameras, index, cell_centres(rows, columns, cell=cell).expand(3, rows, columns, 2))
    torch.testing.assert_close(directions.permute(0, 2, 3, 1), rays.directions)
    torch.testing.assert_close(origins.expand_as(directions).permute(0, 2, 3, 1), rays.origins)
