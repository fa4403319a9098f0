"""Fused CPU kernels (numba) of the spherical-harmonic grid: march, look up, composite, differentiate, scatter, step.

The grid. Level l divides the unit cube into r_l cells a side; a corner's row holds 16 floats, one cache line:

    row = [log density, red 4 SH, green 4 SH, blue 4 SH, 3 spare],   field(x) = sum_l trilinear_l(x)

Small levels are stored densely, larger ones share rows through a spatial hash (Mueller et al. 2022, eq. 4).
Resolutions are even, so a corner's row number has the parity of ix + iy + iz: gradients of even and odd rows, and of
different levels, never meet, and `scatter` may run them side by side with the same bits for any number of threads.

Space. World positions enter through the piecewise-projective contraction of MERF (Reiser et al. 2023, eq. 5), so that
the box of interest fills the middle half of the cube along each axis and straight rays stay straight inside each
region.

Everything is float32, C-contiguous. Nothing here knows torch: a UE renders with these kernels alone. All kernels live
in one file because numba's cache does not notice changes in other files. `no_type_check` keeps the tests' shape
checker from wrapping what numba must compile.
"""

from typing import no_type_check

import numpy as np
from numba import njit, prange

ROW = 16
"""Floats a row: one cache line."""
USED = 13
"""Floats of a row that mean something: log density and 3 x 4 SH coefficients."""
RAY_CHUNK = 32
LOG_DENSITY_MAX = np.float32(11.0)
OPAQUE = np.float32(1e-3)
"""Transmittance below which a ray is finished."""
EDGE = np.float32(0.999999)
THIRD = np.float32(1.0 / 3.0)
SH1 = np.float32(0.4886025 / 0.2820948)
"""Degree-1 basis over the degree-0 basis, which is folded into the coefficients."""

_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)

_jit = njit(fastmath=True, cache=True, nogil=True, error_model="numpy")
_parallel = njit(fastmath=True, cache=True, nogil=True, error_model="numpy", parallel=True)


@_jit
@no_type_check
def contracted(x, y, z, centre, inverse_half):
    """World position to the unit cube: inside the box linear in [1/4, 3/4], outside bent towards the faces."""
    x = (x - centre[0]) * inverse_half[0]
    y = (y - centre[1]) * inverse_half[1]
    z = (z - centre[2]) * inverse_half[2]
    ax, ay, az = abs(x), abs(y), abs(z)
    largest = max(ax, max(ay, az))
    if largest > _ONE:
        inverse = _ONE / largest
        bend = (np.float32(2.0) - inverse) * inverse
        x *= bend if ax == largest else inverse
        y *= bend if ay == largest else inverse
        z *= bend if az == largest else inverse
    quarter, half = np.float32(0.25), np.float32(0.5)
    return (
        min(max(x * quarter + half, _ZERO), EDGE),
        min(max(y * quarter + half, _ZERO), EDGE),
        min(max(z * quarter + half, _ZERO), EDGE),
    )


@_jit
@no_type_check
def cell_of(x, y, z, cells):
    """Number of the occupancy cell at a position of the unit cube."""
    return (np.int64(x * cells) * cells + np.int64(y * cells)) * cells + np.int64(z * cells)


@_parallel
@no_type_check
def march(origins, directions, near, far, jitter, ratio, steps, centre, inverse_half, occupied, cells, t_kept):
    """Geometric steps t -> ratio t along each ray; keeps the starts of those whose middle lies in an occupied cell.

    jitter in [0, 1) shifts a ray's steps. t_kept [rays, steps] receives the starts; returns how many each ray kept.
    """
    rays = len(origins)
    counts = np.zeros(rays + 1, np.int64)
    middle = np.float32(0.5) * (_ONE + ratio)
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            t = near[ray] * ratio ** jitter[ray]
            kept = 0
            for _ in range(steps):
                t_mid = t * middle
                if t_mid >= far[ray]:
                    break
                x, y, z = contracted(
                    origins[ray, 0] + directions[ray, 0] * t_mid,
                    origins[ray, 1] + directions[ray, 1] * t_mid,
                    origins[ray, 2] + directions[ray, 2] * t_mid,
                    centre,
                    inverse_half,
                )
                if occupied[cell_of(x, y, z, cells)]:
                    t_kept[ray, kept] = t
                    kept += 1
                t *= ratio
            counts[ray + 1] = kept
    return counts


@_parallel
@no_type_check
def place(origins, directions, ratio, centre, inverse_half, t_kept, offsets, positions, t_mid, t_step):
    """Packed samples of all rays: unit-cube positions [n, 3], middles and lengths of the steps [n] in metres."""
    rays = len(origins)
    middle = np.float32(0.5) * (_ONE + ratio)
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            first = offsets[ray]
            for k in range(offsets[ray + 1] - first):
                t = t_kept[ray, k]
                m = t * middle
                x, y, z = contracted(
                    origins[ray, 0] + directions[ray, 0] * m,
                    origins[ray, 1] + directions[ray, 1] * m,
                    origins[ray, 2] + directions[ray, 2] * m,
                    centre,
                    inverse_half,
                )
                positions[first + k, 0] = x
                positions[first + k, 1] = y
                positions[first + k, 2] = z
                t_mid[first + k] = m
                t_step[first + k] = t * (ratio - _ONE)


@_jit
@no_type_check
def corner_row(resolution, dense, mask, ix, iy, iz):
    """Row of a grid corner in its level's table."""
    if dense:
        side = resolution + np.uint32(1)
        return np.int64((ix * side + iy) * side + iz)
    return np.int64((ix ^ np.uint32(iy * np.uint32(2654435761)) ^ np.uint32(iz * np.uint32(805459861))) & mask)


@_jit
@no_type_check
def look_up(table, rows, resolutions, x, y, z, row):
    """Sum over levels of the trilinear interpolation at a unit-cube position, into row[16]; a level has `rows` rows."""
    mask = np.uint32(rows - 1)
    for k in range(ROW):
        row[k] = _ZERO
    for level in range(len(resolutions)):
        resolution = np.uint32(resolutions[level])
        dense = (resolutions[level] + 1) ** 3 <= rows
        base = level * rows
        px, py, pz = x * np.float32(resolution), y * np.float32(resolution), z * np.float32(resolution)
        ix, iy, iz = np.uint32(px), np.uint32(py), np.uint32(pz)
        fx, fy, fz = px - np.float32(ix), py - np.float32(iy), pz - np.float32(iz)
        for corner in range(8):
            cx, cy, cz = np.uint32(corner & 1), np.uint32((corner >> 1) & 1), np.uint32(corner >> 2)
            weight = (fx if cx else _ONE - fx) * (fy if cy else _ONE - fy) * (fz if cz else _ONE - fz)
            at = base + corner_row(resolution, dense, mask, ix + cx, iy + cy, iz + cz)
            for k in range(ROW):
                row[k] += weight * table[at, k]


@_jit
@no_type_check
def sigmoid(x):
    return _ONE / (_ONE + np.exp(-x))


@_parallel
@no_type_check
def composite_forward(
    directions, offsets, positions, t_mid, t_step, table, rows, resolutions, density_scale, out, saved, density
):
    """Colour, depth, opacity and distortion of rays: out [rays, 6] = sum w c (3), sum w t, sum w, and how far the
    weight is spread along the ray, sum_ij w_i w_j |s_i - s_j| + sum_i w_i^2 ds_i / 3 with s = log t (Barron et al.
    2022, eq. 15).

    saved [n, 6] keeps w, T, sigma dt and the three colours of each sample for `composite_backward` (w = -1: not
    reached); density [n] gets exp(log density) for the occupancy grid (-1: not reached).
    """
    rays = len(directions)
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        row = np.empty(ROW, np.float32)
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            first, last = offsets[ray], offsets[ray + 1]
            sx, sy, sz = SH1 * directions[ray, 0], SH1 * directions[ray, 1], SH1 * directions[ray, 2]
            reached = _ONE
            red = green = blue = depth = opacity = moment = distortion = _ZERO
            for j in range(first, last):
                if reached < OPAQUE:
                    saved[j, 0] = -_ONE
                    density[j] = -_ONE
                    continue
                look_up(table, rows, resolutions, positions[j, 0], positions[j, 1], positions[j, 2], row)
                local = np.exp(min(row[0], LOG_DENSITY_MAX))
                optical = local * t_step[j] * density_scale
                through = np.exp(-optical)
                w = reached * (_ONE - through)
                r = sigmoid(row[1] + sx * row[2] + sy * row[3] + sz * row[4])
                g = sigmoid(row[5] + sx * row[6] + sy * row[7] + sz * row[8])
                b = sigmoid(row[9] + sx * row[10] + sy * row[11] + sz * row[12])
                red += w * r
                green += w * g
                blue += w * b
                depth += w * t_mid[j]
                s = np.log(t_mid[j])
                spread = w * t_step[j] / t_mid[j]
                distortion += w * (np.float32(2.0) * (s * opacity - moment) + spread * THIRD)
                moment += w * s
                opacity += w
                saved[j, 0] = w
                saved[j, 1] = reached
                saved[j, 2] = optical
                saved[j, 3] = r
                saved[j, 4] = g
                saved[j, 5] = b
                density[j] = local
                reached *= through
            out[ray, 0] = red
            out[ray, 1] = green
            out[ray, 2] = blue
            out[ray, 3] = depth
            out[ray, 4] = opacity
            out[ray, 5] = distortion


@_parallel
@no_type_check
def composite_backward(directions, offsets, t_mid, t_step, saved, density, grad_out, grad_density, grad_samples):
    """Gradients of `composite_forward`'s inputs: grad_samples [n, 8] = d log density, d 3 colour logits, SH (3),
    reached.

    A sample enters the outputs through its weight alone: with v_i the gradient by w_i,
    d / d log sigma_i = sigma_i dt_i (T_{i+1} v_i - sum_{j>i} w_j v_j). To it comes what hangs on the density itself.
    """
    two = np.float32(2.0)
    rays = len(directions)
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            sx, sy, sz = SH1 * directions[ray, 0], SH1 * directions[ray, 1], SH1 * directions[ray, 2]
            g0, g1, g2 = grad_out[ray, 0], grad_out[ray, 1], grad_out[ray, 2]
            g_depth, g_opacity, g_distortion = grad_out[ray, 3], grad_out[ray, 4], grad_out[ray, 5]
            total = total_moment = _ZERO
            for j in range(offsets[ray], offsets[ray + 1]):
                w = max(saved[j, 0], _ZERO)
                total += w
                total_moment += w * np.log(t_mid[j])
            behind = after = after_moment = _ZERO
            for j in range(offsets[ray + 1] - 1, offsets[ray] - 1, -1):
                w = saved[j, 0]
                if w < _ZERO:
                    grad_samples[j, 7] = _ZERO
                    continue
                r, g, b = saved[j, 3], saved[j, 4], saved[j, 5]
                s = np.log(t_mid[j])
                before, before_moment = total - after - w, total_moment - after_moment - w * s
                apart = s * (before - after) - (before_moment - after_moment) + w * THIRD * t_step[j] / t_mid[j]
                value = g0 * r + g1 * g + g2 * b + g_depth * t_mid[j] + g_opacity + two * g_distortion * apart
                through_weight = saved[j, 2] * ((saved[j, 1] - w) * value - behind)
                grad_samples[j, 0] = through_weight + density[j] * grad_density[j]
                behind += w * value
                after += w
                after_moment += w * s
                grad_samples[j, 1] = w * g0 * r * (_ONE - r)
                grad_samples[j, 2] = w * g1 * g * (_ONE - g)
                grad_samples[j, 3] = w * g2 * b * (_ONE - b)
                grad_samples[j, 4] = sx
                grad_samples[j, 5] = sy
                grad_samples[j, 6] = sz
                grad_samples[j, 7] = _ONE


@_parallel
@no_type_check
def scatter(resolutions, rows, positions, grad_samples, slots, index, values, counts):
    """Sum every sample's gradient over the rows it was interpolated from.

    Task = (parity, level). slots [L * T] is -1 everywhere on entry and left so; a row met for the first time gets the
    next
    slot of its task: index [2 L, capacity] tells the row (level * T + row), values [2 L, capacity, 16] its gradient,
    counts [2 L] how many there are.
    """
    mask = np.uint32(rows - 1)
    levels = len(resolutions)
    for task in prange(2 * levels):
        level = task % levels
        parity = np.uint32(task // levels)
        resolution = np.uint32(resolutions[level])
        dense = (resolutions[level] + 1) ** 3 <= rows
        sums = values[task]
        row_of_slot = index[task]
        v = np.zeros(ROW, np.float32)
        found = 0
        for j in range(len(positions)):
            if grad_samples[j, 7] == _ZERO:
                continue
            v[0] = grad_samples[j, 0]
            for c in range(3):
                g = grad_samples[j, 1 + c]
                v[1 + 4 * c] = g
                v[2 + 4 * c] = g * grad_samples[j, 4]
                v[3 + 4 * c] = g * grad_samples[j, 5]
                v[4 + 4 * c] = g * grad_samples[j, 6]
            px = positions[j, 0] * np.float32(resolution)
            py = positions[j, 1] * np.float32(resolution)
            pz = positions[j, 2] * np.float32(resolution)
            ix, iy, iz = np.uint32(px), np.uint32(py), np.uint32(pz)
            fx, fy, fz = px - np.float32(ix), py - np.float32(iy), pz - np.float32(iz)
            odd = (ix ^ iy ^ iz ^ parity) & np.uint32(1)
            for pair in range(4):
                cx, cy = np.uint32(pair & 1), np.uint32(pair >> 1)
                cz = (cx ^ cy ^ odd) & np.uint32(1)
                weight = (fx if cx else _ONE - fx) * (fy if cy else _ONE - fy) * (fz if cz else _ONE - fz)
                at = level * rows + corner_row(resolution, dense, mask, ix + cx, iy + cy, iz + cz)
                slot = slots[at]
                if slot < 0:
                    slot = found
                    slots[at] = found
                    row_of_slot[found] = at
                    found += 1
                    for k in range(ROW):
                        sums[slot, k] = weight * v[k]
                else:
                    for k in range(ROW):
                        sums[slot, k] += weight * v[k]
        for slot in range(found):
            slots[row_of_slot[slot]] = -1
        counts[task] = found


@_parallel
@no_type_check
def pack(index, values, counts, packed_index, packed_values):
    """What `scatter` left task by task as one list: packed_index [n], packed_values [n, 16]."""
    for task in prange(len(counts)):
        first = 0
        for earlier in range(task):
            first += counts[earlier]
        for i in range(counts[task]):
            packed_index[first + i] = index[task, i]
            for k in range(ROW):
                packed_values[first + i, k] = values[task, i, k]


@_parallel
@no_type_check
def adam_rows(parameter, mean, square, index, gradient, rate, beta1, beta2, correction1, correction2, epsilon):
    """Adam (Kingma and Ba 2015) on the rows `index` alone; correction = 1 / (1 - beta^step)."""
    blocks = 64
    size = (len(index) + blocks - 1) // blocks
    for block in prange(blocks):
        for i in range(block * size, min((block + 1) * size, len(index))):
            row = index[i]
            for k in range(ROW):
                g = gradient[i, k]
                mean[row, k] = beta1 * mean[row, k] + (_ONE - beta1) * g
                square[row, k] = beta2 * square[row, k] + (_ONE - beta2) * g * g
                parameter[row, k] -= (
                    rate * (mean[row, k] * correction1) / (np.sqrt(square[row, k] * correction2) + epsilon)
                )


@_parallel
@no_type_check
def densities(positions, table, rows, resolutions, out):
    """exp(log density) at unit-cube positions [n, 3] into out [n]."""
    for chunk in prange((len(positions) + 511) // 512):
        row = np.empty(ROW, np.float32)
        for j in range(chunk * 512, min((chunk + 1) * 512, len(positions))):
            look_up(table, rows, resolutions, positions[j, 0], positions[j, 1], positions[j, 2], row)
            out[j] = np.exp(min(row[0], LOG_DENSITY_MAX))


@_jit
@no_type_check
def visit(density_of_cell, cells, decay, positions, density):
    """Refresh the occupancy grid from samples just evaluated: decay where visited, then keep the largest density."""
    for j in range(len(positions)):
        if density[j] >= _ZERO:
            cell = cell_of(positions[j, 0], positions[j, 1], positions[j, 2], cells)
            density_of_cell[cell] = max(density_of_cell[cell] * decay, density[j])


@_jit
@no_type_check
def look_up_baked(values, place, scales, rows, resolutions, x, y, z, row):
    """`look_up` in a baked table: values [kept, 16] int8 in units of scales [levels, 16]; place [levels * T] tells
    where a row is kept (0: pruned)."""
    mask = np.uint32(rows - 1)
    sums = np.empty(ROW, np.float32)
    for k in range(ROW):
        row[k] = _ZERO
    for level in range(len(resolutions)):
        resolution = np.uint32(resolutions[level])
        dense = (resolutions[level] + 1) ** 3 <= rows
        base = level * rows
        px, py, pz = x * np.float32(resolution), y * np.float32(resolution), z * np.float32(resolution)
        ix, iy, iz = np.uint32(px), np.uint32(py), np.uint32(pz)
        fx, fy, fz = px - np.float32(ix), py - np.float32(iy), pz - np.float32(iz)
        for k in range(ROW):
            sums[k] = _ZERO
        for corner in range(8):
            cx, cy, cz = np.uint32(corner & 1), np.uint32((corner >> 1) & 1), np.uint32(corner >> 2)
            at = place[base + corner_row(resolution, dense, mask, ix + cx, iy + cy, iz + cz)]
            if at == 0:
                continue
            weight = (fx if cx else _ONE - fx) * (fy if cy else _ONE - fy) * (fz if cz else _ONE - fz)
            for k in range(ROW):
                sums[k] += weight * np.float32(values[at, k])
        for k in range(ROW):
            row[k] += sums[k] * scales[level, k]


@_parallel
@no_type_check
def render_baked(
    origin,
    directions,
    near,
    far,
    ratio,
    centre,
    inverse_half,
    occupied,
    cells,
    values,
    place,
    scales,
    rows,
    resolutions,
    density_scale,
    background,
    out,
):
    """March rays from one origin through a baked field: out [rays, 5] = colour over the background (3), mean t,
    opacity."""
    rays = len(directions)
    middle = np.float32(0.5) * (_ONE + ratio)
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        row = np.empty(ROW, np.float32)
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            dx, dy, dz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
            sx, sy, sz = SH1 * dx, SH1 * dy, SH1 * dz
            t = near * np.sqrt(ratio)
            reached = _ONE
            red = green = blue = depth = opacity = _ZERO
            while reached >= OPAQUE:
                t_mid = t * middle
                if t_mid >= far:
                    break
                x, y, z = contracted(
                    origin[0] + dx * t_mid, origin[1] + dy * t_mid, origin[2] + dz * t_mid, centre, inverse_half
                )
                cell = cell_of(x, y, z, cells)
                if (occupied[cell >> 3] >> (cell & 7)) & 1:
                    look_up_baked(values, place, scales, rows, resolutions, x, y, z, row)
                    optical = np.exp(min(row[0], LOG_DENSITY_MAX)) * t * (ratio - _ONE) * density_scale
                    through = np.exp(-optical)
                    w = reached * (_ONE - through)
                    red += w * sigmoid(row[1] + sx * row[2] + sy * row[3] + sz * row[4])
                    green += w * sigmoid(row[5] + sx * row[6] + sy * row[7] + sz * row[8])
                    blue += w * sigmoid(row[9] + sx * row[10] + sy * row[11] + sz * row[12])
                    depth += w * t_mid
                    opacity += w
                    reached *= through
                t *= ratio
            out[ray, 0] = red + (_ONE - opacity) * background[0]
            out[ray, 1] = green + (_ONE - opacity) * background[1]
            out[ray, 2] = blue + (_ONE - opacity) * background[2]
            out[ray, 3] = depth / max(opacity, np.float32(1e-6))
            out[ray, 4] = opacity


@_parallel
@no_type_check
def rows_used(occupied, cells, rows, resolutions, used):
    """Mark in used [levels * T] every row that a sample inside an occupied cell can be interpolated from."""
    mask = np.uint32(rows - 1)
    for level in prange(len(resolutions)):
        resolution = np.uint32(resolutions[level])
        dense = (resolutions[level] + 1) ** 3 <= rows
        scale = np.float32(resolution) / np.float32(cells)
        for cell in range(cells * cells * cells):
            if not occupied[cell]:
                continue
            cx, cy, cz = cell // (cells * cells), cell // cells % cells, cell % cells
            # Corners of the level's cells that overlap this one.
            for ix in range(np.int64(cx * scale), min(np.int64(np.ceil((cx + 1) * scale)), resolution) + 1):
                for iy in range(np.int64(cy * scale), min(np.int64(np.ceil((cy + 1) * scale)), resolution) + 1):
                    for iz in range(np.int64(cz * scale), min(np.int64(np.ceil((cz + 1) * scale)), resolution) + 1):
                        at = corner_row(resolution, dense, mask, np.uint32(ix), np.uint32(iy), np.uint32(iz))
                        used[level * rows + at] = True
