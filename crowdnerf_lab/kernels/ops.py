"""The fused kernels as torch custom ops, so that any torch loss, appearance or schedule works on top of them.

On CPU they run numba (`kernels.cpu`); on other devices plain torch (`kernels.reference`). The gradient of `composite`
is that of its outputs, with respect to the table, and comes as sparse rows, like that of `nn.Embedding(sparse=True)`:
a step touches a few per cent of the table.
"""

import numpy as np
import torch
from torch import Tensor

from crowdnerf_lab.kernels import cpu, reference
from crowdnerf_lab.kernels.scratch import array_of, row_sums


@torch.library.custom_op("crowdnerf_lab::march", mutates_args=())
def march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    ratio: float,
    steps: int,
    centre: Tensor,
    half_size: Tensor,
    occupied: Tensor,
    density_of_cell: Tensor,
    density_scale: float,
    refine: int,
    finest: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples of rays in occupied cells: unit-cube positions [n, 3], step middles and lengths [n], offsets [rays + 1].

    Steps grow geometrically from near to far; jitter [rays] in [0, 1) shifts them. A step to which density_of_cell
    gives the weight w is divided into ceil(refine w) parts, at most `finest`. Not differentiable.
    """
    return reference.march(
        origins,
        directions,
        near,
        far,
        jitter,
        ratio,
        steps,
        centre,
        half_size,
        occupied,
        density_of_cell,
        density_scale,
        refine,
        finest,
    )


@march.register_kernel("cpu")
def _(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    ratio: float,
    steps: int,
    centre: Tensor,
    half_size: Tensor,
    occupied: Tensor,
    density_of_cell: Tensor,
    density_scale: float,
    refine: int,
    finest: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    o, d = array_of(origins), array_of(directions)
    box = array_of(centre), 1 / array_of(half_size)
    t_kept = np.empty((len(o), steps + refine), np.float32)
    dt_kept = np.empty_like(t_kept)
    counts = cpu.march(
        o,
        d,
        array_of(near),
        array_of(far),
        array_of(jitter),
        np.float32(ratio),
        steps,
        *box,
        array_of(occupied).reshape(-1),
        array_of(density_of_cell).reshape(-1),
        occupied.shape[0],
        np.float32(density_scale),
        np.float32(refine),
        finest,
        t_kept,
        dt_kept,
    )
    offsets = np.cumsum(counts)
    n = int(offsets[-1])
    positions, t_mid, t_step = np.empty((n, 3), np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    cpu.place(o, d, *box, t_kept, dt_kept, offsets, positions, t_mid, t_step)
    return torch.from_numpy(positions), torch.from_numpy(t_mid), torch.from_numpy(t_step), torch.from_numpy(offsets)


@torch.library.custom_op("crowdnerf_lab::composite", mutates_args=())
def composite(
    table: Tensor,
    rows: int,
    resolutions: list[int],
    directions: Tensor,
    offsets: Tensor,
    positions: Tensor,
    t_mid: Tensor,
    t_step: Tensor,
    density_scale: float,
    roulette: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (3), sum of w t, opacity and distortion of rays [rays, 6]; exp(log density) of samples [n], -1 where a
    ray had ended; and what the backward pass needs [n, 6].

    table [levels * rows, 16]; directions [rays, 3]; the rest as `march` returns it; `kernels.reference.composite`
    gives the equations. The first two outputs are differentiable in `table`, `positions` and `directions`.

    roulette: on CPU, samples whose gradient is below so many times the mean are mostly dropped and the rest of them
    enlarged: a noisier gradient, right on average, for less than half the work; 0 gives the exact one.
    """
    out, density = reference.composite(
        table, rows, tuple(resolutions), directions, offsets, positions, t_mid, t_step, density_scale
    )
    return out, density, out.new_empty(0, 6)


@composite.register_kernel("cpu")
def _(
    table: Tensor,
    rows: int,
    resolutions: list[int],
    directions: Tensor,
    offsets: Tensor,
    positions: Tensor,
    t_mid: Tensor,
    t_step: Tensor,
    density_scale: float,
    roulette: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    n = len(positions)
    out, saved, density = (
        np.empty((len(directions), 6), np.float32),
        np.empty((n, 6), np.float32),
        np.empty(n, np.float32),
    )
    cpu.composite_forward(
        array_of(directions),
        array_of(offsets),
        array_of(positions),
        array_of(t_mid),
        array_of(t_step),
        array_of(table),
        rows,
        np.array(resolutions, np.int64),
        np.float32(density_scale),
        out,
        saved,
        density,
    )
    return torch.from_numpy(out), torch.from_numpy(density), torch.from_numpy(saved)


def _sample_gradients(
    grad_out: Tensor,
    grad_density: Tensor,
    directions: Tensor,
    offsets: Tensor,
    positions: Tensor,
    t_mid: Tensor,
    t_step: Tensor,
    density: Tensor,
    saved: Tensor,
    roulette: float,
) -> np.ndarray:
    """What `cpu.composite_backward` finds for every sample [n, 8], thinned out by roulette."""
    grad_samples = np.empty((len(positions), 8), np.float32)
    cpu.composite_backward(
        array_of(directions),
        array_of(offsets),
        array_of(t_mid),
        array_of(t_step),
        array_of(saved),
        array_of(density),
        array_of(grad_out),
        array_of(grad_density),
        grad_samples,
    )
    if roulette > 0:
        cpu.roulette(grad_samples, array_of(positions), roulette)
    return grad_samples


def _row_gradient(
    grad_samples: np.ndarray, rows: int, resolutions: list[int], positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of the table (level * rows + row) that `composite` used on CPU, and the gradient of each [n, 16]."""
    n, tasks = len(positions), 2 * len(resolutions)
    work = row_sums(tasks, 4 * n, len(resolutions) * rows, cpu.ROW)
    counts = np.empty(tasks, np.int64)
    cpu.scatter(
        np.array(resolutions, np.int64),
        rows,
        array_of(positions),
        grad_samples,
        work.slots,
        work.index,
        work.values,
        counts,
    )
    index = np.empty(int(counts.sum()), np.int64)
    values = np.empty((len(index), cpu.ROW), np.float32)
    cpu.pack(work.index, work.values, counts, index, values)
    return torch.from_numpy(index), torch.from_numpy(values)


def _ray_gradients(
    grad_samples: np.ndarray,
    table: Tensor,
    rows: int,
    resolutions: list[int],
    directions: Tensor,
    offsets: Tensor,
    positions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients by positions [n, 3] and directions [rays, 3] on CPU."""
    by_position, by_direction = np.empty(positions.shape, np.float32), np.empty(directions.shape, np.float32)
    cpu.ray_gradients(
        array_of(table),
        rows,
        np.array(resolutions, np.int64),
        array_of(directions),
        array_of(offsets),
        array_of(positions),
        grad_samples,
        by_position,
        by_direction,
    )
    return torch.from_numpy(by_position), torch.from_numpy(by_direction)


def _save_for_backward(ctx, inputs, output) -> None:
    table, rows, resolutions, directions, offsets, positions, t_mid, t_step, density_scale, roulette = inputs
    _, density, saved = output
    ctx.mark_non_differentiable(saved)
    ctx.save_for_backward(table, directions, offsets, positions, t_mid, t_step, density, saved)
    ctx.rows, ctx.resolutions, ctx.density_scale, ctx.roulette = rows, resolutions, density_scale, roulette


def _backward(ctx, grad_out, grad_density, _grad_saved):
    table, directions, offsets, positions, t_mid, t_step, density, saved = ctx.saved_tensors
    for_table, for_directions, for_positions = (ctx.needs_input_grad[i] for i in (0, 3, 5))
    by_table = by_directions = by_positions = None
    if table.device.type == "cpu":
        grad_samples = _sample_gradients(
            grad_out,
            grad_density,
            directions,
            offsets,
            positions,
            t_mid,
            t_step,
            density,
            saved,
            ctx.roulette,
        )
        if for_table:
            index, values = _row_gradient(grad_samples, ctx.rows, ctx.resolutions, positions)
            by_table = torch.sparse_coo_tensor(
                index[None], values, table.shape, is_coalesced=True, check_invariants=False
            )
        if for_directions or for_positions:
            by_positions, by_directions = _ray_gradients(
                grad_samples, table, ctx.rows, ctx.resolutions, directions, offsets, positions
            )
    else:
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (table, directions, positions)]
            outputs = reference.composite(
                leaves[0],
                ctx.rows,
                tuple(ctx.resolutions),
                leaves[1],
                offsets,
                leaves[2],
                t_mid,
                t_step,
                ctx.density_scale,
            )
        by_table, by_directions, by_positions = torch.autograd.grad(outputs, leaves, (grad_out, grad_density))
    return by_table, None, None, by_directions, None, by_positions, None, None, None, None


composite.register_autograd(_backward, setup_context=_save_for_backward)
