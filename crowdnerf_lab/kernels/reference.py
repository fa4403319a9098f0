"""The kernels in plain torch, for any device: what the fused ones are tested against, and what runs where none is
fused.

The grid's layout and the contraction are described in `kernels.cpu`; both sides must agree in value and gradient.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ROW = 16
LOG_DENSITY_MAX = 11.0
EDGE = 0.999999
SH1 = 0.4886025 / 0.2820948
OPAQUE = 1e-3


def contracted(
    positions: Float[Tensor, "*n 3"], centre: Float[Tensor, "3"], half_size: Float[Tensor, "3"]
) -> Float[Tensor, "*n 3"]:
    """World positions to the unit cube: linear in [1/4, 3/4] inside the box, bent towards the faces outside.

    The piecewise-projective contraction of MERF (Reiser et al. 2023, eq. 5), scaled from [-2, 2] to [0, 1].
    """
    x = (positions - centre) / half_size
    largest, axis = x.abs().max(dim=-1, keepdim=True)
    outside = largest.clamp(min=1.0)
    bend = torch.full_like(x, 1.0).scatter(-1, axis, 2 - 1 / outside)
    return (x / outside * bend * 0.25 + 0.5).clamp(0, EDGE)


def uncontracted(
    positions: Float[Tensor, "*n 3"], centre: Float[Tensor, "3"], half_size: Float[Tensor, "3"]
) -> Float[Tensor, "*n 3"]:
    """Inverse of `contracted`: the unit cube back to the world."""
    y = (positions - 0.5) * 4
    largest, axis = y.abs().max(dim=-1, keepdim=True)
    outside = 1 / (2 - largest.clamp(min=1.0))
    x = torch.where(largest > 1, y.scatter(-1, axis, y.gather(-1, axis).sign()) * outside, y)
    return x * half_size + centre


def corner_rows(resolution: int, rows: int, corners: Int[Tensor, "*n 3"]) -> Int[Tensor, "*n"]:
    """Rows of grid corners in their level's table: dense where they fit, else the spatial hash of Mueller et al.
    2022, eq. 4."""
    x, y, z = corners.unbind(-1)
    if (resolution + 1) ** 3 <= rows:
        return (x * (resolution + 1) + y) * (resolution + 1) + z
    wrapped = 0xFFFFFFFF
    return (x ^ (y * 2654435761 & wrapped) ^ (z * 805459861 & wrapped)) & (rows - 1)


def look_up(
    table: Float[Tensor, "all_rows 16"], rows: int, resolutions: tuple[int, ...], positions: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 16"]:
    """Sum over the levels of trilinear interpolation at unit-cube positions. Differentiable in table and positions.

    The table holds level after level of `rows` rows; only the levels of `resolutions` are read.
    """
    total = torch.zeros(len(positions), ROW, dtype=table.dtype, device=table.device)
    for level, resolution in enumerate(resolutions):
        scaled = positions * resolution
        low = scaled.detach().long()
        fraction = scaled - low
        for corner in range(8):
            offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=positions.device)
            weight = torch.where(offset.bool(), fraction, 1 - fraction).prod(-1)
            total = total + weight[:, None] * table[level * rows + corner_rows(resolution, rows, low + offset)]
    return total


def density_of(rows: Float[Tensor, "*n 16"]) -> Float[Tensor, "*n"]:
    """exp(log density), capped where it could only overflow."""
    return torch.exp(rows[..., 0].clamp(max=LOG_DENSITY_MAX))


def colour_of(rows: Float[Tensor, "*n 16"], directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """sRGB colour in [0, 1]: a sigmoid of degree-1 spherical harmonics in the viewing direction."""
    coefficients = rows[..., 1:13].unflatten(-1, (3, 4))
    basis = torch.cat([torch.ones_like(directions[..., :1]), SH1 * directions], dim=-1)
    return torch.sigmoid((coefficients * basis[..., None, :]).sum(-1))


def march(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near: Float[Tensor, "rays"],
    far: Float[Tensor, "rays"],
    jitter: Float[Tensor, "rays"],
    ratio: float,
    steps: int,
    centre: Float[Tensor, "3"],
    half_size: Float[Tensor, "3"],
    occupied: Bool[Tensor, "cells cells cells"],
    density_of_cell: Float[Tensor, "cells cells cells"],
    density_scale: float,
    refine: int,
    finest: int,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"], Float[Tensor, "n"], Int[Tensor, "rays+1"]]:
    """Geometric steps t -> ratio t through occupied cells, divided where the cells' densities promise weight: packed
    unit-cube positions, step middles, step lengths, offsets.

    A step of weight w becomes ceil(refine w) parts, at least 1 and at most `finest`; of these, those in occupied cells
    are kept.
    """
    start = near[:, None] * ratio ** (jitter[:, None] + torch.arange(steps, device=near.device))
    step = start * (ratio - 1)
    middle = start * (0.5 * (1 + ratio))
    cell = cell_of(
        contracted(origins[:, None] + directions[:, None] * middle[..., None], centre, half_size), occupied.shape[0]
    )
    keep = (middle < far[:, None]) & occupied[cell]
    optical = torch.where(keep, density_of_cell[cell] * density_scale * step, 0)
    reached = torch.exp(optical - torch.cumsum(optical, dim=-1))
    weight = reached * (1 - torch.exp(-optical))
    each = torch.where(keep, torch.ceil(refine * weight).long().clamp(1, finest), 0).reshape(-1)
    part = torch.repeat_interleave(torch.arange(len(each), device=near.device), each)
    nth = torch.arange(len(part), device=near.device) - (each.cumsum(0) - each)[part]
    t_step = step.reshape(-1)[part] / each[part]
    t_mid = start.reshape(-1)[part] + (nth + 0.5) * t_step
    ray = part // steps
    positions = contracted(origins[ray] + directions[ray] * t_mid[:, None], centre, half_size)
    lit = (each[part] == 1) | occupied[cell_of(positions, occupied.shape[0])]
    offsets = torch.zeros(len(near) + 1, dtype=torch.int64, device=near.device)
    offsets[1:] = torch.zeros(len(near), dtype=torch.int64, device=near.device).index_add(0, ray, lit.long()).cumsum(0)
    return positions[lit], t_mid[lit], t_step[lit], offsets


def cell_of(unit: Float[Tensor, "*n 3"], cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the occupancy cells at positions of the unit cube."""
    x, y, z = (unit * cells).long().unbind(-1)
    return x, y, z


def composite(
    table: Float[Tensor, "all_rows 16"],
    rows: int,
    resolutions: tuple[int, ...],
    directions: Float[Tensor, "rays 3"],
    offsets: Int[Tensor, "rays+1"],
    positions: Float[Tensor, "n 3"],
    t_mid: Float[Tensor, "n"],
    t_step: Float[Tensor, "n"],
    density_scale: float,
) -> tuple[Float[Tensor, "rays 6"], Float[Tensor, "n"]]:
    """Over packed samples: colour (3), sum of w t, opacity and distortion of rays; and exp(log density) of every
    sample.

    Distortion is sum_ij w_i w_j |s_i - s_j| + sum_i w_i^2 ds_i / 3 with s = log t (Barron et al. 2022, eq. 15).
    Samples behind an opaque one count for nothing and have density -1. density_scale turns exp(log density) into
    density per metre.
    """
    counts = offsets.diff()
    ray = torch.repeat_interleave(torch.arange(len(counts), device=offsets.device), counts)
    found = look_up(table, rows, resolutions, positions)
    density = density_of(found)
    optical = density * t_step * density_scale
    reached = torch.exp(-summed_before(optical, offsets, ray))
    lit = reached >= OPAQUE
    w = torch.where(lit, reached * (1 - torch.exp(-optical)), 0)
    s = torch.log(t_mid)
    distortion = w * (
        2 * (s * summed_before(w, offsets, ray) - summed_before(w * s, offsets, ray)) + w / 3 * t_step / t_mid
    )
    ones = torch.ones_like(t_mid)
    values = torch.cat([colour_of(found, directions[ray]), torch.stack([t_mid, ones], dim=-1)], dim=-1) * w[:, None]
    summed = torch.zeros(len(counts), 6, dtype=table.dtype, device=table.device)
    summed = summed.index_add(0, ray, torch.cat([values, distortion[:, None]], dim=-1))
    return summed, torch.where(lit, density, -1)


def summed_before(
    values: Float[Tensor, "n"], offsets: Int[Tensor, "edges"], ray: Int[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """Sum of the values of a sample's own ray that come before it."""
    before = torch.cumsum(values.double(), 0) - values
    first = torch.cat([before, before.new_zeros(1)])[offsets[:-1]]
    return (before - first[ray]).to(values.dtype)
