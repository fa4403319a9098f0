"""The hash grid's kernels as torch custom ops: a network between them is plain torch, on any device.

On CPU they run numba (`kernels.hash_cpu`); on other devices the plain torch below, which is also what the tests hold
the kernels against. The gradient by the table comes as sparse lines, like that of `nn.Embedding(sparse=True)`.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crowdnerf_lab.kernels import hash_cpu
from crowdnerf_lab.kernels.reference import summed_before
from crowdnerf_lab.kernels.scratch import array_of, row_sums

LINE, FEATURES = hash_cpu.LINE, hash_cpu.FEATURES
LOG_DENSITY_MAX, OPAQUE = float(hash_cpu.LOG_DENSITY_MAX), float(hash_cpu.OPAQUE)


def lines_of_corners(
    resolution: int, lines: int, corners: Int[Tensor, "*n 3"]
) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"]]:
    """Line of grid corners in their level's table, and their place 0..3 there. See `kernels.hash_cpu`."""
    x, y, z = corners.unbind(-1)
    brick_y, brick_z = y // 2, z // 2
    place = 2 * (y % 2) + z % 2
    bricks = resolution // 2 + 1
    if (resolution + 1) * bricks * bricks <= lines:
        return (x * bricks + brick_y) * bricks + brick_z, place
    wrapped = 0xFFFFFFFF
    return (x * 805459861 & wrapped ^ brick_y * 2654435761 & wrapped ^ brick_z) & (lines - 1), place


def encode_reference(
    positions: Float[Tensor, "n 3"], table: Float[Tensor, "all_lines 16"], lines: int, resolutions: tuple[int, ...]
) -> Float[Tensor, "n features"]:
    """The levels' trilinear interpolations at unit-cube positions, side by side. Differentiable in both tensors."""
    corners_of_table = table.view(-1, LINE // FEATURES, FEATURES)
    levels = []
    for level, resolution in enumerate(resolutions):
        scaled = positions * resolution
        low = scaled.detach().long()
        fraction = scaled - low
        total = torch.zeros(len(positions), FEATURES, dtype=table.dtype, device=table.device)
        for corner in range(8):
            offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=positions.device)
            weight = torch.where(offset.bool(), fraction, 1 - fraction).prod(-1)
            line, place = lines_of_corners(resolution, lines, low + offset)
            total = total + weight[:, None] * corners_of_table[level * lines + line, place]
        levels.append(total)
    return torch.cat(levels, dim=-1)


def rays_of_samples(offsets: Int[Tensor, "edges"]) -> Int[Tensor, "n"]:
    """Number of the ray that each packed sample belongs to."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())


def weights_reference(
    log_density: Float[Tensor, "n"], offsets: Int[Tensor, "edges"], t_step: Float[Tensor, "n"], density_scale: float
) -> Float[Tensor, "n"]:
    """Weight w_i = T_i (1 - exp(-sigma_i dt_i)) of every sample in its ray's pixel; -1 where the ray had ended."""
    optical = torch.exp(log_density.clamp(max=LOG_DENSITY_MAX)) * t_step * density_scale
    reached = torch.exp(-summed_before(optical, offsets, rays_of_samples(offsets)))
    return torch.where(reached >= OPAQUE, reached * (1 - torch.exp(-optical)), -1)


def composite_reference(
    log_density: Float[Tensor, "n"],
    values: Float[Tensor, "n channels"],
    offsets: Int[Tensor, "edges"],
    t_mid: Float[Tensor, "n"],
    t_step: Float[Tensor, "n"],
    density_scale: float,
) -> tuple[Float[Tensor, "rays sums"], Float[Tensor, "n"]]:
    """Sums over the packed samples of each ray: w v (channels), w t, w, and the distortion sum_ij w_i w_j |s_i - s_j| +
    sum_i w_i^2 ds_i / 3 with s = log t (Barron et al. 2022, eq. 15); and exp(log density) of every sample.

    Samples behind an opaque one count for nothing and have density -1. density_scale turns exp(log density) into
    density per metre.
    """
    ray = rays_of_samples(offsets)
    weights = weights_reference(log_density, offsets, t_step, density_scale)
    w, s = torch.where(weights >= 0, weights, 0), torch.log(t_mid)
    before, moment_before = summed_before(w, offsets, ray), summed_before(w * s, offsets, ray)
    distortion = w * (2 * (s * before - moment_before) + w / 3 * t_step / t_mid)
    ones = torch.ones_like(t_mid)
    sums = torch.cat([torch.cat([values, t_mid[:, None], ones[:, None]], -1) * w[:, None], distortion[:, None]], -1)
    out = torch.zeros(len(offsets) - 1, sums.shape[1], dtype=sums.dtype, device=sums.device).index_add(0, ray, sums)
    density = torch.exp(log_density.clamp(max=LOG_DENSITY_MAX))
    return out, torch.where(weights >= 0, density, -1)


@torch.library.custom_op("crowdnerf_lab::hash_encode", mutates_args=())
def encode(positions: Tensor, table: Tensor, lines: int, resolutions: list[int]) -> Tensor:
    """Features [n, 4 L] of unit-cube positions [n, 3] in a table [>= L * lines, 16]. Differentiable in both tensors;
    the table's gradient is sparse on CPU."""
    return encode_reference(positions, table, lines, tuple(resolutions))


@encode.register_kernel("cpu")
def _(positions: Tensor, table: Tensor, lines: int, resolutions: list[int]) -> Tensor:
    encoded = np.empty((len(positions), FEATURES * len(resolutions)), np.float32)
    hash_cpu.encode(array_of(positions), array_of(table), lines, np.array(resolutions, np.int64), encoded)
    return torch.from_numpy(encoded)


def _save_encode(ctx, inputs, output) -> None:
    positions, table, ctx.lines, ctx.resolutions = inputs
    ctx.save_for_backward(positions, table)


def _encode_backward(ctx, grad_encoded):
    positions, table = ctx.saved_tensors
    by_position, by_table = ctx.needs_input_grad[:2]
    if table.device.type != "cpu":
        with torch.enable_grad():
            leaves = positions.detach().requires_grad_(by_position), table.detach().requires_grad_(by_table)
            encoded = encode_reference(*leaves, ctx.lines, tuple(ctx.resolutions))
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(encoded, wanted, grad_encoded))
        return (next(found) if by_position else None), (next(found) if by_table else None), None, None
    grad_positions = _slopes(positions, grad_encoded, table, ctx.lines, ctx.resolutions) if by_position else None
    grad_table = _line_gradient(positions, grad_encoded, table, ctx.lines, ctx.resolutions) if by_table else None
    return grad_positions, grad_table, None, None


encode.register_autograd(_encode_backward, setup_context=_save_encode)


def _slopes(positions: Tensor, grad_encoded: Tensor, table: Tensor, lines: int, resolutions: list[int]) -> Tensor:
    slopes = np.empty((len(positions), 3), np.float32)
    hash_cpu.slopes(
        array_of(positions), array_of(grad_encoded), array_of(table), lines, np.array(resolutions, np.int64), slopes
    )
    return torch.from_numpy(slopes)


def _line_gradient(
    positions: Tensor, grad_encoded: Tensor, table: Tensor, lines: int, resolutions: list[int]
) -> Tensor:
    levels = len(resolutions)
    work = row_sums(levels, min(8 * len(positions), lines), levels * lines, LINE)
    counts = np.empty(levels, np.int64)
    hash_cpu.scatter(
        array_of(positions),
        array_of(grad_encoded),
        lines,
        np.array(resolutions, np.int64),
        work.slots,
        work.index,
        work.values,
        counts,
    )
    index = np.empty(int(counts.sum()), np.int64)
    values = np.empty((len(index), LINE), np.float32)
    hash_cpu.pack(work.index, work.values, counts, index, values)
    return torch.sparse_coo_tensor(
        torch.from_numpy(index)[None],
        torch.from_numpy(values),
        table.shape,
        is_coalesced=True,
        check_invariants=False,
    )


@torch.no_grad()
def weigh(
    log_density: Float[Tensor, "n"], offsets: Int[Tensor, "edges"], t_step: Float[Tensor, "n"], density_scale: float
) -> Float[Tensor, "n"]:
    """`weights_reference` without a gradient: tells which samples need a colour at all."""
    if log_density.device.type != "cpu":
        return weights_reference(log_density, offsets, t_step, density_scale)
    weights = np.empty(len(log_density), np.float32)
    hash_cpu.weigh(array_of(log_density), array_of(offsets), array_of(t_step), np.float32(density_scale), weights)
    return torch.from_numpy(weights)


@torch.library.custom_op("crowdnerf_lab::composite_values", mutates_args=())
def composite(
    log_density: Tensor, values: Tensor, offsets: Tensor, t_mid: Tensor, t_step: Tensor, density_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums along rays [rays, C + 3] of values [n, C] (C), of t, opacity and distortion; exp(log density) of samples
    [n], -1 where a ray had ended; and what the backward pass needs [n, 3].

    `composite_reference` gives the equations. The first two outputs are differentiable in log_density and values.
    """
    out, density = composite_reference(log_density, values, offsets, t_mid, t_step, density_scale)
    return out, density, out.new_empty(0, 3)


@composite.register_kernel("cpu")
def _(
    log_density: Tensor, values: Tensor, offsets: Tensor, t_mid: Tensor, t_step: Tensor, density_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    n, channels = values.shape
    out = np.empty((len(offsets) - 1, channels + 3), np.float32)
    saved, density = np.empty((n, 3), np.float32), np.empty(n, np.float32)
    hash_cpu.composite_forward(
        array_of(log_density),
        array_of(values),
        array_of(offsets),
        array_of(t_mid),
        array_of(t_step),
        np.float32(density_scale),
        out,
        saved,
        density,
    )
    return torch.from_numpy(out), torch.from_numpy(density), torch.from_numpy(saved)


def _save_composite(ctx, inputs, output) -> None:
    *tensors, ctx.density_scale = inputs
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(*tensors, output[2])


def _composite_backward(ctx, grad_out, grad_density, _grad_saved):
    log_density, values, offsets, t_mid, t_step, saved = ctx.saved_tensors
    if log_density.device.type != "cpu":
        with torch.enable_grad():
            leaves = log_density.detach().requires_grad_(), values.detach().requires_grad_()
            outputs = composite_reference(*leaves, offsets, t_mid, t_step, ctx.density_scale)
        return *torch.autograd.grad(outputs, leaves, (grad_out, grad_density)), None, None, None, None
    grad_log_density, grad_values = np.empty(len(values), np.float32), np.empty(values.shape, np.float32)
    hash_cpu.composite_backward(
        array_of(log_density),
        array_of(values),
        array_of(offsets),
        array_of(t_mid),
        array_of(t_step),
        array_of(saved),
        array_of(grad_out),
        array_of(grad_density),
        grad_log_density,
        grad_values,
    )
    return torch.from_numpy(grad_log_density), torch.from_numpy(grad_values), None, None, None, None


composite.register_autograd(_composite_backward, setup_context=_save_composite)
