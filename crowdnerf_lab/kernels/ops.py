"""The fused kernels as torch custom ops, so that any torch loss, appearance or schedule works on top of them.

On CPU they run numba (`kernels.cpu`); on other devices plain torch (`kernels.reference`). The gradient of `composite`
is that of its outputs, with respect to the table, and comes as sparse rows, like that of `nn.Embedding(sparse=True)`:
a step touches a few per cent of the table.
"""

import threading

import numpy as np
import torch
from torch import Tensor

from crowdnerf_lab.kernels import cpu, reference


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples of rays in occupied cells: unit-cube positions [n, 3], step middles and lengths [n], offsets [rays + 1].

    Steps grow geometrically from near to far; jitter [rays] in [0, 1) shifts them. Not differentiable.
    """
    return reference.march(origins, directions, near, far, jitter, ratio, steps, centre, half_size, occupied)


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    o, d = _array(origins), _array(directions)
    box = _array(centre), 1 / _array(half_size)
    growth = np.float32(ratio)
    t_kept = np.empty((len(o), steps), np.float32)
    counts = cpu.march(
        o,
        d,
        _array(near),
        _array(far),
        _array(jitter),
        growth,
        steps,
        *box,
        _array(occupied).reshape(-1),
        occupied.shape[0],
        t_kept,
    )
    offsets = np.cumsum(counts)
    n = int(offsets[-1])
    positions, t_mid, t_step = np.empty((n, 3), np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    cpu.place(o, d, growth, *box, t_kept, offsets, positions, t_mid, t_step)
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (3), sum of w t, opacity and distortion of rays [rays, 6]; exp(log density) of samples [n], -1 where a
    ray had ended; and what the backward pass needs [n, 6].

    table [levels * rows, 16]; directions [rays, 3]; the rest as `march` returns it; `kernels.reference.composite`
    gives the equations. The first two outputs are differentiable in `table`.
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
) -> tuple[Tensor, Tensor, Tensor]:
    n = len(positions)
    out, saved, density = (
        np.empty((len(directions), 6), np.float32),
        np.empty((n, 6), np.float32),
        np.empty(n, np.float32),
    )
    cpu.composite_forward(
        _array(directions),
        _array(offsets),
        _array(positions),
        _array(t_mid),
        _array(t_step),
        _array(table),
        rows,
        np.array(resolutions, np.int64),
        np.float32(density_scale),
        out,
        saved,
        density,
    )
    return torch.from_numpy(out), torch.from_numpy(density), torch.from_numpy(saved)


def _row_gradient(
    grad_out: Tensor,
    grad_density: Tensor,
    rows: int,
    resolutions: list[int],
    directions: Tensor,
    offsets: Tensor,
    positions: Tensor,
    t_mid: Tensor,
    t_step: Tensor,
    density: Tensor,
    saved: Tensor,
) -> tuple[Tensor, Tensor]:
    """Rows of the table (level * rows + row) that `composite` used on CPU, and the gradient of each [n, 16]."""
    n, tasks = len(positions), 2 * len(resolutions)
    grad_samples = np.empty((n, 8), np.float32)
    cpu.composite_backward(
        _array(directions),
        _array(offsets),
        _array(t_mid),
        _array(t_step),
        _array(saved),
        _array(density),
        _array(grad_out),
        _array(grad_density),
        grad_samples,
    )
    work = _workspace(tasks, 4 * n, len(resolutions) * rows)
    counts = np.empty(tasks, np.int64)
    cpu.scatter(
        np.array(resolutions, np.int64),
        rows,
        _array(positions),
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


def _save_for_backward(ctx, inputs, output) -> None:
    table, rows, resolutions, directions, offsets, positions, t_mid, t_step, density_scale = inputs
    _, density, saved = output
    ctx.mark_non_differentiable(saved)
    ctx.save_for_backward(table, directions, offsets, positions, t_mid, t_step, density, saved)
    ctx.rows, ctx.resolutions, ctx.density_scale = rows, resolutions, density_scale


def _backward(ctx, grad_out, grad_density, _grad_saved):
    table, directions, offsets, positions, t_mid, t_step, density, saved = ctx.saved_tensors
    if table.device.type == "cpu":
        index, values = _row_gradient(
            grad_out,
            grad_density,
            ctx.rows,
            ctx.resolutions,
            directions,
            offsets,
            positions,
            t_mid,
            t_step,
            density,
            saved,
        )
        grad_table = torch.sparse_coo_tensor(
            index[None], values, table.shape, is_coalesced=True, check_invariants=False
        )
    else:
        with torch.enable_grad():
            leaf = table.detach().requires_grad_()
            outputs = reference.composite(
                leaf, ctx.rows, tuple(ctx.resolutions), directions, offsets, positions, t_mid, t_step, ctx.density_scale
            )
        (grad_table,) = torch.autograd.grad(outputs, leaf, (grad_out, grad_density))
    return grad_table, None, None, None, None, None, None, None, None


composite.register_autograd(_backward, setup_context=_save_for_backward)


class _Workspace:
    """Scratch memory of `scatter`, kept between steps: allocating it anew costs more than filling it."""

    def __init__(self, tasks: int, capacity: int, rows: int) -> None:
        self.slots = np.full(rows, -1, np.int32)
        self.index = np.empty((tasks, capacity), np.int64)
        self.values = np.empty((tasks, capacity, cpu.ROW), np.float32)

    def fits(self, tasks: int, capacity: int, rows: int) -> bool:
        return self.index.shape[0] >= tasks and self.index.shape[1] >= capacity and len(self.slots) >= rows


_kept = threading.local()


def _workspace(tasks: int, capacity: int, rows: int) -> _Workspace:
    work: _Workspace | None = getattr(_kept, "workspace", None)
    if work is None or not work.fits(tasks, capacity, rows):
        work = _kept.workspace = _Workspace(tasks, capacity + capacity // 4, rows)
    return work


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
