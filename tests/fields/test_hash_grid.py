"""The hash grid as a radiance field: what it offers, that it learns, and that its file brings it back."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.fields.grid_field import PackedSamples
from crowdnerf_lab.fields.hash_grid import (
    HashGrid,
    HashGridShape,
    spherical_harmonics,
)
from crowdnerf_lab.fields.storage import load_field, save_field
from crowdnerf_lab.kernels import hash_ops
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import Bounds
from crowdnerf_lab.weights import WeightsError

SHAPE = HashGridShape(resolutions=(4, 8, 16), log2_lines=6, width=16, code=7, occupancy_cells=8, steps=24)
BOX = Bounds(centre=torch.tensor([0.1, -0.2, 0.3]), half_size=torch.tensor([1.0, 1.5, 0.7]))


@pytest.fixture
def field() -> HashGrid:
    generator = torch.Generator().manual_seed(3)
    grid = HashGrid(BOX, shape=SHAPE, seed=1)
    grid.table.data.copy_(torch.randn(grid.table.shape, generator=generator))
    grid.occupied.copy_(torch.rand(8, 8, 8, generator=generator) < 0.6)
    return grid


def _rays(count: int) -> Rays:
    generator = torch.Generator().manual_seed(4)
    return Rays(
        origins=0.5 * torch.randn(count, 3, generator=generator),
        directions=torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1),
        near=torch.zeros(count),
        far=torch.full((count,), math.inf),
        camera_index=torch.zeros(count, dtype=torch.int64),
        time=torch.zeros(count),
    )


def _marched(field: HashGrid, rays: Rays) -> PackedSamples:
    return field.march(rays, jitter=torch.full_like(rays.near, 0.3), steps=24)


def test_offers_what_a_radiance_field_must(field: HashGrid) -> None:
    assert isinstance(field, RadianceField)
    rays = _rays(12)
    grid = Rays(**{name: getattr(rays, name).unflatten(0, (3, 4)) for name in rays.__dataclass_fields__})
    rendered = field.render(grid)
    assert rendered.colour.shape == (3, 4, 3)
    assert ((rendered.colour >= 0) & (rendered.colour <= 1)).all()
    torch.testing.assert_close(rendered.depth.flatten(), field.render(rays).depth)


def test_density_agrees_with_what_rays_meet(field: HashGrid) -> None:
    rays = _rays(20)
    samples = _marched(field, rays)
    met = field.composite(rays, samples, levels=3).density
    ray = hash_ops.rays_of_samples(samples.offsets)
    positions = rays.origins[ray] + samples.t_mid[:, None] * rays.directions[ray]
    asked, _ = field(positions, rays.directions[ray])
    lit = met >= 0
    torch.testing.assert_close(met[lit] * field.density_scale, asked[lit], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(field.density(positions), asked)


def test_faint_samples_need_no_colour(field: HashGrid) -> None:
    """The colours of the samples that were left out change no pixel by more than their weight."""
    rays = _rays(20)
    samples = _marched(field, rays)
    rendered = field.composite(rays, samples, levels=3).rendered
    ray = hash_ops.rays_of_samples(samples.offsets)
    positions = rays.origins[ray] + samples.t_mid[:, None] * rays.directions[ray]
    density, colour = field(positions, rays.directions[ray])
    out, _ = hash_ops.composite_reference(
        torch.log(density / field.density_scale),
        colour,
        samples.offsets,
        samples.t_mid,
        samples.t_step,
        field.density_scale,
    )
    everything = out[:, :3] + (1 - out[:, 4:5]) * torch.sigmoid(field.background)
    torch.testing.assert_close(rendered.colour, everything, atol=1e-2, rtol=0)


def test_levels_that_do_not_take_part_change_nothing(field: HashGrid) -> None:
    rays = _rays(20)
    samples = _marched(field, rays)
    before = field.composite(rays, samples, levels=2).rendered.colour
    field.table.data[2 * field.lines :] += 1
    assert torch.equal(field.composite(rays, samples, levels=2).rendered.colour, before)
    assert not torch.equal(field.composite(rays, samples, levels=3).rendered.colour, before)


def test_gradient_by_position_agrees_with_finite_differences(field: HashGrid) -> None:
    positions = torch.tensor([[0.11, -0.31, 0.27], [0.5, 0.4, 0.1]], requires_grad=True)
    (gradient,) = torch.autograd.grad(field.density(positions).sum(), positions)
    step = 1e-3
    for axis in range(3):
        moved = torch.zeros(3).index_fill(0, torch.tensor([axis]), step)
        with torch.no_grad():
            slope = (field.density(positions + moved) - field.density(positions - moved)) / (2 * step)
        torch.testing.assert_close(gradient[:, axis], slope, rtol=5e-2, atol=5e-2)


def test_rendered_colour_is_differentiable_along_and_across_rays(field: HashGrid) -> None:
    """Poses are refined through these gradients."""
    rays = _rays(20)
    samples = _marched(field, rays)
    positions, directions = samples.positions.requires_grad_(), rays.directions.requires_grad_()
    colour = field.composite(replace(rays, directions=directions), samples, levels=3).rendered.colour
    by_position, by_direction = torch.autograd.grad(colour.sum(), (positions, directions))
    assert by_position.abs().sum() > 0
    assert by_direction.abs().sum() > 0


def test_learns_a_colour(field: HashGrid) -> None:
    """A few steps of its own optimizers bring every ray's colour to one that was asked for."""
    rays, target = _rays(64), torch.tensor([0.8, 0.3, 0.1])
    samples = _marched(field, rays)
    optimizers = field.optimizers(1e-2)
    errors = []
    for _ in range(60):
        loss = (field.composite(rays, samples, levels=3).rendered.colour - target).square().mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.05 * errors[0]


def test_seed_decides_the_first_weights() -> None:
    one, again, other = (HashGrid(BOX, shape=SHAPE, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["table"], other["table"])


def test_spherical_harmonics_are_orthonormal() -> None:
    directions = torch.nn.functional.normalize(
        torch.randn(200_000, 3, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    basis = spherical_harmonics(directions)
    torch.testing.assert_close(4 * math.pi * basis.T @ basis / len(basis), torch.eye(16), atol=0.03, rtol=0)


def test_file_brings_the_field_back(field: HashGrid, tmp_path: Path) -> None:
    path = save_field(field, tmp_path / "field.safetensors")
    back = load_field(path)
    assert back.shape == field.shape
    rays = _rays(5)
    assert torch.equal(back.render(rays).colour, field.render(rays).colour)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"field\.safetensors"):
        load_field(path)


def test_odd_resolutions_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        HashGrid(BOX, shape=HashGridShape(resolutions=(4, 7)))
