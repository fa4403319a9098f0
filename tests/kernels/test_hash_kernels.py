"""The hash grid's kernels against the plain torch reference and against finite differences."""

import itertools

import numba
import pytest
import torch

from crowdnerf_lab.kernels import hash_ops

RESOLUTIONS = [4, 8, 16]
LINES = 64
"""Too few for the bricks of levels 8 and 16, which are hashed."""
SCALE = 0.7


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(len(RESOLUTIONS) * LINES, hash_ops.LINE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def positions() -> torch.Tensor:
    return torch.rand(300, 3, generator=torch.Generator().manual_seed(2)) * 0.999


def _samples(values: int = 3) -> tuple[torch.Tensor, ...]:
    """log density, values, offsets, t_mid, t_step of 30 rays; some are empty, some end behind something opaque."""
    generator = torch.Generator().manual_seed(3)
    counts = torch.randint(0, 12, (30,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    n = int(offsets[-1])
    t_step = 0.1 + torch.rand(n, generator=generator)
    t_mid = torch.cat([t_step[a:b].cumsum(0) for a, b in itertools.pairwise(offsets)])
    log_density = 2 * torch.randn(n, generator=generator)
    return log_density, torch.randn(n, values, generator=generator), offsets, t_mid, t_step


def test_levels_are_dense_and_hashed() -> None:
    def bricks(resolution: int) -> int:
        return (resolution + 1) * (resolution // 2 + 1) ** 2

    assert [bricks(resolution) <= LINES for resolution in RESOLUTIONS] == [True, False, False]


def test_corners_of_dense_level_have_places_of_their_own() -> None:
    side = torch.arange(5)
    corners = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1).reshape(-1, 3)
    line, place = hash_ops.lines_of_corners(4, LINES, corners)
    assert len(torch.unique(4 * line + place)) == len(corners)
    assert int(line.max()) < LINES


def test_encoding_agrees_with_reference_in_value_and_gradient(table: torch.Tensor, positions: torch.Tensor) -> None:
    weight = torch.randn(len(positions), 12, generator=torch.Generator().manual_seed(4))
    found = []
    for fused in (True, False):
        leaves = positions.clone().requires_grad_(), table.clone().requires_grad_()
        if fused:
            encoded = hash_ops.encode(*leaves, LINES, RESOLUTIONS)
        else:
            encoded = hash_ops.encode_reference(*leaves, LINES, tuple(RESOLUTIONS))
        found.append((encoded.detach(), *torch.autograd.grad((encoded * weight).sum(), leaves)))
    (ours, our_slopes, our_lines), (theirs, their_slopes, their_lines) = found
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_slopes, their_slopes, atol=1e-4, rtol=1e-4)
    assert our_lines.is_sparse
    torch.testing.assert_close(our_lines.to_dense(), their_lines, atol=1e-4, rtol=1e-4)


def test_encoding_at_a_corner_is_its_row(table: torch.Tensor) -> None:
    corner = torch.tensor([[1, 2, 3]])
    encoded = hash_ops.encode(corner / 4, table, LINES, [4])
    line, place = hash_ops.lines_of_corners(4, LINES, corner)
    first = 4 * int(place)
    torch.testing.assert_close(encoded[0], table[int(line), first : first + 4])


def test_gradient_lines_are_unique_and_slots_are_returned(table: torch.Tensor, positions: torch.Tensor) -> None:
    table.requires_grad_()
    gradients = [
        torch.autograd.grad(hash_ops.encode(positions, table, LINES, RESOLUTIONS).sum(), table)[0] for _ in range(2)
    ]
    index = gradients[0]._indices()[0]
    assert len(index.unique()) == len(index)
    # A second pass finds the scratch memory as the first one did.
    assert torch.equal(gradients[0].to_dense(), gradients[1].to_dense())


@pytest.mark.parametrize("channels", [0, 3, 7])
def test_composite_agrees_with_reference_in_value_and_gradient(channels: int) -> None:
    log_density, values, offsets, t_mid, t_step = _samples(channels)
    generator = torch.Generator().manual_seed(5)
    by_ray = torch.randn(30, channels + 3, generator=generator)
    by_sample = torch.randn(len(values), generator=generator)
    found = []
    for composite in (hash_ops.composite, hash_ops.composite_reference):
        leaves = log_density.clone().requires_grad_(), values.clone().requires_grad_()
        out, density, *_ = composite(*leaves, offsets, t_mid, t_step, SCALE)
        loss = (out * by_ray).sum() + (density * by_sample).sum()
        found.append((out.detach(), density.detach(), *torch.autograd.grad(loss, leaves, allow_unused=channels == 0)))
    for ours, theirs in zip(*found, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert (found[0][1] == -1).any(), "no ray of this test ends behind something opaque"


def test_opacity_is_the_sum_of_weights() -> None:
    log_density, values, offsets, t_mid, t_step = _samples()
    out, _, _ = hash_ops.composite(log_density, values, offsets, t_mid, t_step, SCALE)
    weights = hash_ops.weigh(log_density, offsets, t_step, SCALE)
    torch.testing.assert_close(weights, hash_ops.weights_reference(log_density, offsets, t_step, SCALE))
    summed = torch.zeros(30).index_add(0, hash_ops.rays_of_samples(offsets), weights.clamp(min=0))
    torch.testing.assert_close(out[:, 4], summed)


def test_threads_do_not_change_a_bit(table: torch.Tensor, positions: torch.Tensor) -> None:
    log_density, values, offsets, t_mid, t_step = _samples()
    table.requires_grad_()
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            encoded = hash_ops.encode(positions, table, LINES, RESOLUTIONS)
            (lines,) = torch.autograd.grad(encoded.square().sum(), table)
            leaves = log_density.clone().requires_grad_(), values.clone().requires_grad_()
            out, density, _ = hash_ops.composite(*leaves, offsets, t_mid, t_step, SCALE)
            results.append((encoded.detach(), lines.to_dense(), out, density, *torch.autograd.grad(out.sum(), leaves)))
    finally:
        numba.set_num_threads(before)
    for one, all_threads in zip(*results, strict=True):
        assert torch.equal(one, all_threads)
