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

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange

from crowdnerf_lab.kernels.turns import in_turn

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
_compiled_parallel = njit(fastmath=True, cache=True, nogil=True, error_model="numpy", parallel=True)


def _parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    return in_turn(_compiled_parallel(function))


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
def march(
    origins,
    directions,
    near,
    far,
    jitter,
    ratio,
    steps,
    centre,
    inverse_half,
    occupied,
    density_of_cell,
    cells,
    density_scale,
    refine,
    finest,
    t_kept,
    dt_kept,
):
    """Geometric steps t -> ratio t along each ray; keeps those whose middle lies in an occupied cell, and divides them
    where the pixel's colour comes from: a step that the cells' densities give the weight w becomes
    ceil(refine w) <= finest equal parts, of which those are kept that lie in occupied cells themselves.

    jitter in [0, 1) shifts a ray's steps. t_kept, dt_kept [rays, steps + refine] receive starts and lengths; returns
    how many each ray kept.
    """
    rays = len(origins)
    counts = np.zeros(rays + 1, np.int64)
    middle = np.float32(0.5) * (_ONE + ratio)
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            t = near[ray] * ratio ** jitter[ray]
            kept = 0
            reached = _ONE
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
                cell = cell_of(x, y, z, cells)
                if occupied[cell]:
                    step = t * (ratio - _ONE)
                    through = np.exp(-density_of_cell[cell] * density_scale * step)
                    parts = min(max(np.int64(np.ceil(refine * reached * (_ONE - through))), 1), finest)
                    reached *= through
                    part = step / np.float32(parts)
                    for i in range(parts):
                        if parts > 1:
                            m = t + (np.float32(i) + np.float32(0.5)) * part
                            x, y, z = contracted(
                                origins[ray, 0] + directions[ray, 0] * m,
                                origins[ray, 1] + directions[ray, 1] * m,
                                origins[ray, 2] + directions[ray, 2] * m,
                                centre,
                                inverse_half,
                            )
                            if not occupied[cell_of(x, y, z, cells)]:
                                continue
                        t_kept[ray, kept] = t + np.float32(i) * part
                        dt_kept[ray, kept] = part
                        kept += 1
                t *= ratio
            counts[ray + 1] = kept
    return counts


@_parallel
@no_type_check
def place(origins, directions, centre, inverse_half, t_kept, dt_kept, offsets, positions, t_mid, t_step):
    """Packed samples of all rays: unit-cube positions [n, 3], middles and lengths of the steps [n] in metres."""
    rays = len(origins)
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            first = offsets[ray]
            for k in range(offsets[ray + 1] - first):
                step = dt_kept[ray, k]
                m = t_kept[ray, k] + np.float32(0.5) * step
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
                t_step[first + k] = step


@_jit
@no_type_check
def corner_rows(level, rows, resolution, dense, mask, ix, iy, iz):
    """Rows in the whole table of the eight corners of a cell, z fastest. All at once: corner by corner takes three
    times as long."""
    base = np.int64(level) * rows
    if dense:
        side = np.int64(resolution) + 1
        near = base + (np.int64(ix) * side + np.int64(iy)) * side + np.int64(iz)
        far = near + side * side
        return near, near + 1, near + side, near + side + 1, far, far + 1, far + side, far + side + 1
    x1 = np.uint32(ix + np.uint32(1))
    y0, z0 = np.uint32(iy * np.uint32(2654435761)), np.uint32(iz * np.uint32(805459861))
    y1, z1 = np.uint32(y0 + np.uint32(2654435761)), np.uint32(z0 + np.uint32(805459861))
    return (
        base + np.int64((ix ^ y0 ^ z0) & mask),
        base + np.int64((ix ^ y0 ^ z1) & mask),
        base + np.int64((ix ^ y1 ^ z0) & mask),
        base + np.int64((ix ^ y1 ^ z1) & mask),
        base + np.int64((x1 ^ y0 ^ z0) & mask),
        base + np.int64((x1 ^ y0 ^ z1) & mask),
        base + np.int64((x1 ^ y1 ^ z0) & mask),
        base + np.int64((x1 ^ y1 ^ z1) & mask),
    )


@_jit
@no_type_check
def cell_in_level(x, y, z, resolution):
    """Cell of a unit-cube position in a level, and where in it: integer corner, fractions."""
    scale = np.float32(resolution)
    px, py, pz = x * scale, y * scale, z * scale
    ix, iy, iz = np.uint32(px), np.uint32(py), np.uint32(pz)
    return ix, iy, iz, px - np.float32(ix), py - np.float32(iy), pz - np.float32(iz)


@_jit
@no_type_check
def look_up(table, rows, resolutions, x, y, z, row):
    """Sum over levels of the trilinear interpolation at a unit-cube position, into row[16]; a level has `rows` rows."""
    mask = np.uint32(rows - 1)
    for k in range(ROW):
        row[k] = _ZERO
    for level in range(len(resolutions)):
        dense = (resolutions[level] + 1) ** 3 <= rows
        ix, iy, iz, fx, fy, fz = cell_in_level(x, y, z, resolutions[level])
        a, b, c, d, e, f, g, h = corner_rows(level, rows, resolutions[level], dense, mask, ix, iy, iz)
        gx, gy, gz = _ONE - fx, _ONE - fy, _ONE - fz
        w00, w01, w10, w11 = gx * gy, gx * fy, fx * gy, fx * fy
        for k in range(ROW):
            row[k] += (
                w00 * (gz * table[a, k] + fz * table[b, k])
                + w01 * (gz * table[c, k] + fz * table[d, k])
                + w10 * (gz * table[e, k] + fz * table[f, k])
                + w11 * (gz * table[g, k] + fz * table[h, k])
            )


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


@_jit
@no_type_check
def roulette(grad_samples, positions, threshold):
    """Drop most samples whose gradient is small, and enlarge those of the rest so that the sum stays right on average
    (Russian roulette; Arvo and Kirk 1990). grad_samples as `composite_backward` left them; 7 becomes 0 for the dropped.

    A sample of gradient m (sum of absolute values) below `threshold` times the mean survives with the probability
    m / (threshold mean), decided by the fractions of its own position: the same samples always fare the same.
    """
    total = 0.0
    for j in range(len(grad_samples)):
        if grad_samples[j, 7] != _ZERO:
            for k in range(4):
                total += abs(grad_samples[j, k])
    enough = np.float32(threshold * total / max(len(grad_samples), 1))
    for j in range(len(grad_samples)):
        size = _ZERO
        for k in range(4):
            size += abs(grad_samples[j, k])
        if grad_samples[j, 7] == _ZERO or size >= enough:
            continue
        chance = (
            positions[j, 0] * np.float32(65536.0)
            + positions[j, 1] * np.float32(40503.0)
            + positions[j, 2] * np.float32(30011.0)
        )
        chance -= np.floor(chance)
        if chance * enough < size:
            for k in range(4):
                grad_samples[j, k] *= enough / size
        else:
            grad_samples[j, 7] = _ZERO


@_parallel
@no_type_check
def scatter(resolutions, rows, positions, grad_samples, slots, index, values, counts):
    """Sum every sample's gradient over the rows it was interpolated from.

    Task = (parity, level). slots [L * T] is -1 everywhere on entry and left so; a row met for the first time gets the
    next slot of its task: index [2 L, capacity] tells the row (level * T + row), values [2 L, capacity, 16] its
    gradient, counts [2 L] how many there are.
    """
    mask = np.uint32(rows - 1)
    levels = len(resolutions)
    for task in prange(2 * levels):
        level = task % levels
        parity = np.uint32(task // levels)
        resolution = resolutions[level]
        dense = (resolution + 1) ** 3 <= rows
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
            ix, iy, iz, fx, fy, fz = cell_in_level(positions[j, 0], positions[j, 1], positions[j, 2], resolution)
            gx, gy, gz = _ONE - fx, _ONE - fy, _ONE - fz
            a, b, c, d, e, f, g, h = corner_rows(level, rows, resolution, dense, mask, ix, iy, iz)
            # The corners of one parity, and their weights.
            if (ix ^ iy ^ iz ^ parity) & np.uint32(1) == np.uint32(0):
                r0, r1, r2, r3 = a, d, f, g
                w0, w1, w2, w3 = gx * gy * gz, gx * fy * fz, fx * gy * fz, fx * fy * gz
            else:
                r0, r1, r2, r3 = b, c, e, h
                w0, w1, w2, w3 = gx * gy * fz, gx * fy * gz, fx * gy * gz, fx * fy * fz
            for corner in range(4):
                at, weight = r3, w3
                if corner == 0:
                    at, weight = r0, w0
                elif corner == 1:
                    at, weight = r1, w1
                elif corner == 2:
                    at, weight = r2, w2
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
def ray_gradients(
    table, rows, resolutions, directions, offsets, positions, grad_samples, grad_positions, grad_directions
):
    """Gradients of `composite_forward` by the samples' unit-cube positions [n, 3] and the rays' directions [rays, 3],
    from what `composite_backward` found."""
    mask = np.uint32(rows - 1)
    rays = len(directions)
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        v, row = np.zeros(ROW, np.float32), np.empty(ROW, np.float32)
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            for axis in range(3):
                grad_directions[ray, axis] = _ZERO
            for j in range(offsets[ray], offsets[ray + 1]):
                for axis in range(3):
                    grad_positions[j, axis] = _ZERO
                if grad_samples[j, 7] == _ZERO:
                    continue
                x, y, z = positions[j, 0], positions[j, 1], positions[j, 2]
                look_up(table, rows, resolutions, x, y, z, row)
                v[0] = grad_samples[j, 0]
                for c in range(3):
                    g = grad_samples[j, 1 + c]
                    v[1 + 4 * c] = g
                    for axis in range(3):
                        v[2 + 4 * c + axis] = g * grad_samples[j, 4 + axis]
                        grad_directions[ray, axis] += g * SH1 * row[2 + 4 * c + axis]
                for level in range(len(resolutions)):
                    resolution = resolutions[level]
                    dense = (resolution + 1) ** 3 <= rows
                    ix, iy, iz, fx, fy, fz = cell_in_level(x, y, z, resolution)
                    gx, gy, gz = _ONE - fx, _ONE - fy, _ONE - fz
                    a, b, c, d, e, f, g, h = corner_rows(level, rows, resolution, dense, mask, ix, iy, iz)
                    va = vb = vc = vd = ve = vf = vg = vh = _ZERO
                    for k in range(USED):
                        va += v[k] * table[a, k]
                        vb += v[k] * table[b, k]
                        vc += v[k] * table[c, k]
                        vd += v[k] * table[d, k]
                        ve += v[k] * table[e, k]
                        vf += v[k] * table[f, k]
                        vg += v[k] * table[g, k]
                        vh += v[k] * table[h, k]
                    scale = np.float32(resolution)
                    across_x = gy * (gz * (ve - va) + fz * (vf - vb)) + fy * (gz * (vg - vc) + fz * (vh - vd))
                    across_y = gx * (gz * (vc - va) + fz * (vd - vb)) + fx * (gz * (vg - ve) + fz * (vh - vf))
                    across_z = gx * (gy * (vb - va) + fy * (vd - vc)) + fx * (gy * (vf - ve) + fy * (vh - vg))
                    grad_positions[j, 0] += scale * across_x
                    grad_positions[j, 1] += scale * across_y
                    grad_positions[j, 2] += scale * across_z


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


@_parallel
@no_type_check
def witnesses(points, rotation, position, focal, centre, size, distortion, near, seen_by):
    """Count in seen_by [n] the cameras [m] whose picture each world point [n, 3] falls into, beyond `near` metres.

    Camera-to-world rotation [m, 3, 3] and position [m, 3]; focal, centre, size (width, height) [m, 2] in pixels;
    distortion [m, 4] is OpenCV's k1, k2, p1, p2.
    """
    for i in prange(len(points)):
        for k in range(len(position)):
            turn, lens = rotation[k], distortion[k]
            dx, dy, dz = (
                points[i, 0] - position[k, 0],
                points[i, 1] - position[k, 1],
                points[i, 2] - position[k, 2],
            )
            depth = turn[0, 2] * dx + turn[1, 2] * dy + turn[2, 2] * dz
            if depth > near:
                x = (turn[0, 0] * dx + turn[1, 0] * dy + turn[2, 0] * dz) / depth
                y = (turn[0, 1] * dx + turn[1, 1] * dy + turn[2, 1] * dz) / depth
                r2 = x * x + y * y
                radial = _ONE + r2 * (lens[0] + lens[1] * r2)
                twice_xy = np.float32(2.0) * x * y
                bent_x = x * radial + lens[2] * twice_xy + lens[3] * (r2 + np.float32(2.0) * x * x)
                bent_y = y * radial + lens[3] * twice_xy + lens[2] * (r2 + np.float32(2.0) * y * y)
                u = bent_x * focal[k, 0] + centre[k, 0]
                v = bent_y * focal[k, 1] + centre[k, 1]
                if _ZERO <= u < size[k, 0] and _ZERO <= v < size[k, 1]:
                    seen_by[i] += 1


@_jit
@no_type_check
def corner_row(resolution, dense, mask, ix, iy, iz):
    """Row of a grid corner in its level's table."""
    if dense:
        side = resolution + np.uint32(1)
        return np.int64((ix * side + iy) * side + iz)
    return np.int64((ix ^ np.uint32(iy * np.uint32(2654435761)) ^ np.uint32(iz * np.uint32(805459861))) & mask)


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
