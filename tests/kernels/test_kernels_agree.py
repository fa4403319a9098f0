"""The fused kernels against the plain torch reference and against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdnerf_lab.fields.sh_grid import SHGrid, SHGridShape
from crowdnerf_lab.kernels import cpu, ops, reference
from crowdnerf_lab.kernels.row_adam import RowAdam
from crowdnerf_lab.rays import Rays
from crowdnerf_lab.scene import Bounds

SHAPE = SHGridShape(resolutions=(4, 8, 16), log2_rows=9, occupancy_cells=8, steps=24)


@pytest.fixture
def field() -> SHGrid:
    """A grid of random rows with matter in six cells of ten, more in some than in others."""
    generator = torch.Generator().manual_seed(3)
    box = Bounds(centre=torch.tensor([0.1, -0.2, 0.3]), half_size=torch.tensor([1.0, 1.5, 0.7]))
    grid = SHGrid(box, shape=SHAPE)
    grid.table.data.copy_(torch.randn(grid.table.shape, generator=generator))
    grid.occupied.copy_(torch.rand(8, 8, 8, generator=generator) < 0.6)
    grid.density_of_cell.copy_(4 * torch.rand(8, 8, 8, generator=generator) ** 2)
    return grid


@pytest.fixture
def rays() -> Rays:
    generator = torch.Generator().manual_seed(4)
    directions = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator), dim=-1)
    return Rays(
        origins=0.5 * torch.randn(40, 3, generator=generator),
        directions=directions,
        near=torch.zeros(40),
        far=torch.cat([torch.full((30,), math.inf), torch.full((10,), 2.0)]),
        camera_index=torch.zeros(40, dtype=torch.int64),
        time=torch.zeros(40),
    )


def test_levels_are_dense_and_hashed(field: SHGrid) -> None:
    rows = field.rows
    assert [(resolution + 1) ** 3 <= rows for resolution in SHAPE.resolutions] == [True, False, False]


def _composited(field: SHGrid, rays: Rays, samples) -> tuple:
    return (
        field.table,
        field.rows,
        list(SHAPE.resolutions),
        rays.directions,
        samples.offsets,
        samples.positions,
        samples.t_mid,
        samples.t_step,
        field.density_scale,
    )


def test_march_agrees_with_reference(field: SHGrid, rays: Rays) -> None:
    jitter = torch.rand(40, generator=torch.Generator().manual_seed(5))
    samples = field.march(rays, jitter=jitter, steps=24)
    near, far = SHAPE.near * field.radius, SHAPE.far * field.radius
    ratio = math.exp(math.log(far / near) / 24)
    positions, t_mid, t_step, offsets = reference.march(
        rays.origins,
        rays.directions,
        torch.full((40,), near),
        rays.far.clamp(max=far),
        jitter,
        ratio,
        24,
        field.centre,
        field.half_size,
        field.occupied,
        field.density_of_cell,
        field.density_scale,
        SHAPE.refine,
        SHAPE.finest,
    )
    assert torch.equal(samples.offsets, offsets)
    torch.testing.assert_close(samples.positions, positions, atol=1e-6, rtol=0)
    torch.testing.assert_close(samples.t_mid, t_mid, atol=0, rtol=1e-5)
    torch.testing.assert_close(samples.t_step, t_step, atol=0, rtol=1e-4)


def test_march_divides_steps_where_the_weight_is(field: SHGrid, rays: Rays) -> None:
    jitter = torch.full((40,), 0.5)
    field.occupied.fill_(True)
    divided = field.march(rays, jitter=jitter, steps=24)
    field.density_of_cell.zero_()
    whole = field.march(rays, jitter=jitter, steps=24)
    extra = divided.offsets.diff() - whole.offsets.diff()
    assert 1 < int(extra.max()) <= SHAPE.refine
    assert int(extra.min()) >= 0
    # Nothing of a ray is lost or met twice.
    for samples in (divided, whole):
        ray = torch.repeat_interleave(torch.arange(40), samples.offsets.diff())
        ends = samples.t_mid + samples.t_step / 2
        within = ray[1:] == ray[:-1]
        torch.testing.assert_close((samples.t_mid - samples.t_step / 2)[1:][within], ends[:-1][within])


def test_divided_steps_stay_within_occupied_cells(field: SHGrid, rays: Rays) -> None:
    field.density_of_cell.fill_(50.0)
    samples = field.march(rays, jitter=torch.full((40,), 0.5), steps=24)
    inside = field.occupied[reference.cell_of(samples.positions, 8)]
    assert inside.all()


def test_gradients_by_rays_agree_with_reference(field: SHGrid, rays: Rays) -> None:
    samples = field.march(rays, jitter=torch.full((40,), 0.3), steps=24)
    by_ray = torch.randn(40, 6, generator=torch.Generator().manual_seed(6))
    table, rows, levels, directions, offsets, positions, *rest = _composited(field, rays, samples)
    leaves = directions.clone().requires_grad_(), positions.clone().requires_grad_()

    out, _, _ = ops.composite(table, rows, levels, leaves[0], offsets, leaves[1], *rest)
    found = torch.autograd.grad((out * by_ray).sum(), leaves)
    out, _ = reference.composite(table, rows, tuple(levels), leaves[0], offsets, leaves[1], *rest)
    expected = torch.autograd.grad((out * by_ray).sum(), leaves)

    for a, b in zip(found, expected, strict=True):
        assert float(b.abs().max()) > 0.1
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_roulette_keeps_the_gradient_on_average_and_drops_most_samples(field: SHGrid, rays: Rays) -> None:
    weights = torch.randn(40, 6, generator=torch.Generator().manual_seed(6))
    total, thinned, touched = torch.zeros_like(field.table), torch.zeros_like(field.table), [0, 0]
    for turn in range(60):
        jitter = torch.rand(40, generator=torch.Generator().manual_seed(turn))
        samples = field.march(rays, jitter=jitter, steps=24)
        arguments = _composited(field, rays, samples)
        for k, (sums, roulette) in enumerate(((total, 0.0), (thinned, 8.0))):
            out, _, _ = ops.composite(*arguments, roulette)
            (gradient,) = torch.autograd.grad((out * weights).sum(), field.table)
            touched[k] += gradient._nnz()
            sums += gradient.to_dense()
    assert touched[1] < 0.75 * touched[0]
    # The mean of many steps is nearly that of the exact gradients.
    assert float((thinned - total).norm() / total.norm()) < 0.2
    assert float((thinned.sum(0) - total.sum(0)).abs().max() / total.abs().sum(0).max()) < 0.05


def test_composite_agrees_with_reference_in_value_and_gradient(field: SHGrid, rays: Rays) -> None:
    samples = field.march(rays, jitter=torch.full((40,), 0.3), steps=24)
    generator = torch.Generator().manual_seed(6)
    by_ray, by_sample = torch.randn(40, 6, generator=generator), torch.randn(len(samples), generator=generator)
    arguments = _composited(field, rays, samples)

    out, density, _ = ops.composite(*arguments)
    (gradient,) = torch.autograd.grad((out * by_ray).sum() + (density * by_sample).sum(), field.table)
    expected_out, expected_density = reference.composite(*arguments[:2], SHAPE.resolutions, *arguments[3:])
    (expected_gradient,) = torch.autograd.grad(
        (expected_out * by_ray).sum() + (expected_density * by_sample).sum(), field.table
    )

    torch.testing.assert_close(out, expected_out, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(density, expected_density, atol=1e-5, rtol=1e-5)
    assert gradient.is_sparse
    torch.testing.assert_close(gradient.to_dense(), expected_gradient, atol=2e-5, rtol=1e-4)


def test_gradient_agrees_with_finite_differences(field: SHGrid, rays: Rays) -> None:
    samples = field.march(rays, jitter=torch.full((40,), 0.6), steps=24)
    weights = torch.randn(40, 6, generator=torch.Generator().manual_seed(7))
    arguments = _composited(field, rays, samples)

    def value() -> float:
        with torch.no_grad():
            return float((ops.composite(*arguments)[0].double() * weights).sum())

    (gradient,) = torch.autograd.grad((ops.composite(*arguments)[0] * weights).sum(), field.table)
    gradient = gradient.to_dense()
    largest = gradient[:, : cpu.USED].abs().flatten().argsort(descending=True)[:40:4]
    for flat in largest.tolist():
        row, k = divmod(flat, cpu.USED)
        step = 1e-2
        with torch.no_grad():
            field.table[row, k] += step
            above = value()
            field.table[row, k] -= 2 * step
            below = value()
            field.table[row, k] += step
        assert (above - below) / (2 * step) == pytest.approx(float(gradient[row, k]), rel=2e-2, abs=2e-3)


def test_gradient_rows_are_unique_and_slots_are_returned(field: SHGrid, rays: Rays) -> None:
    samples = field.march(rays, jitter=torch.full((40,), 0.3), steps=24)
    arguments = _composited(field, rays, samples)
    gradients = [torch.autograd.grad(ops.composite(*arguments)[0].sum(), field.table)[0] for _ in range(2)]
    index = gradients[0]._indices()[0]
    assert len(index.unique()) == len(index)
    # A second pass finds the scratch memory as the first one did.
    assert torch.equal(gradients[0].to_dense(), gradients[1].to_dense())


def test_threads_do_not_change_a_bit(field: SHGrid, rays: Rays) -> None:
    import numba

    samples = field.march(rays, jitter=torch.full((40,), 0.3), steps=24)
    arguments = _composited(field, rays, samples)
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            out, _, _ = ops.composite(*arguments)
            (gradient,) = torch.autograd.grad(out.square().sum(), field.table)
            results.append((out.detach(), gradient.to_dense()))
    finally:
        numba.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_constant_density_slab() -> None:
    """A slab of constant density sigma and thickness L has opacity 1 - exp(-sigma L), however finely it is marched."""
    grid = SHGrid(Bounds(centre=torch.zeros(3), half_size=torch.ones(3)), shape=SHAPE)
    ray = Rays(
        origins=torch.tensor([[-0.9, 0.0, 0.0]]),
        directions=torch.tensor([[1.0, 0.0, 0.0]]),
        near=torch.zeros(1),
        far=torch.full((1,), torch.inf),
        camera_index=torch.zeros(1, dtype=torch.int64),
        time=torch.zeros(1),
    )
    for steps in (16, 64, 256):
        samples = grid.march(ray, jitter=torch.zeros(1), steps=steps)
        length = float(samples.t_step.sum())
        opacity = grid.composite(ray, samples, levels=3).rendered.opacity.item()
        assert opacity == pytest.approx(1 - math.exp(-grid.density_scale * length), rel=2e-3)


def test_weights_move_from_fog_to_surface_under_distortion(field: SHGrid, rays: Rays) -> None:
    """Distortion is zero for a ray whose weight sits in one step of no length, and grows as weight spreads."""
    samples = field.march(rays, jitter=torch.full((40,), 0.3), steps=24)
    composited = field.composite(rays, samples, levels=3)
    assert (composited.distortion >= 0).all()
    assert ((composited.rendered.opacity >= -1e-6) & (composited.rendered.opacity <= 1 + 1e-5)).all()
    counts = samples.offsets.diff()
    assert (composited.distortion[counts == 0] == 0).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3))
def test_contraction_is_inverted(point: list[float]) -> None:
    centre, half_size = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 1.0, 3.0])
    world = torch.tensor(point)
    unit = reference.contracted(world, centre, half_size)
    assert ((unit >= 0) & (unit < 1)).all()
    back = reference.uncontracted(unit, centre, half_size)
    torch.testing.assert_close(back, world, atol=2e-2, rtol=2e-3)
    kernel = cpu.contracted(*world.numpy(), centre.numpy(), 1 / half_size.numpy())
    np.testing.assert_allclose(np.array(kernel), unit.numpy(), atol=2e-6)


def test_row_adam_is_adam_on_the_rows_it_touches() -> None:
    generator = torch.Generator().manual_seed(8)
    start = torch.randn(12, 16, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    row_adam = RowAdam([ours], rate=0.01, epsilon=1e-8)
    adam = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    rows = torch.tensor([0, 3, 7])
    for _ in range(5):
        values = torch.randn(3, 16, generator=generator)
        ours.grad = torch.sparse_coo_tensor(rows[None], values, ours.shape, check_invariants=True)
        theirs.grad = torch.zeros(12, 16).index_add(0, rows, values)
        row_adam.step()
        adam.step()
    torch.testing.assert_close(ours[rows], theirs[rows], atol=1e-5, rtol=1e-4)
    untouched = torch.ones(12, dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(ours[untouched], start[untouched])


@pytest.mark.row("S1")
def test_field_is_differentiable_in_position(field: SHGrid) -> None:
    positions = torch.tensor([[0.11, -0.31, 0.27], [0.5, 0.4, 0.1]], requires_grad=True)
    (gradient,) = torch.autograd.grad(field.density(positions).sum(), positions)
    step = 1e-3
    for axis in range(3):
        moved = torch.zeros(3).index_fill(0, torch.tensor([axis]), step)
        with torch.no_grad():
            slope = (field.density(positions + moved) - field.density(positions - moved)) / (2 * step)
        torch.testing.assert_close(gradient[:, axis], slope, rtol=2e-2, atol=2e-2)
