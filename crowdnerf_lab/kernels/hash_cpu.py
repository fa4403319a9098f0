"""Fused CPU kernels (numba) of the hash grid: encode, scatter, and composite what a network made of the encoding.

The grid. Level l divides the unit cube into r_l cells a side (r_l even); a corner holds 4 features, and the encoding of
a position is the levels' trilinear interpolations side by side (Mueller et al. 2022). A line of the table is 64 bytes,
the unit in which memory is fetched, and holds a brick of 1 x 2 x 2 corners:

    corner (x, y, z)  ->  line of brick (x, y // 2, z // 2), floats 4 (2 (y mod 2) + z mod 2) to + 4

so that the eight corners of a cell lie in 4.5 lines on average, not 8. Levels whose bricks fit are stored densely, the
others share lines through a spatial hash. No two levels share a line: `scatter` runs them side by side with the same
bits for any number of threads.

Everything is float32, C-contiguous. All kernels live in one file because numba's cache does not notice changes in other
files. `no_type_check` keeps the tests' shape checker from wrapping what numba must compile.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange

from crowdnerf_lab.kernels.turns import in_turn

LINE = 16
"""Floats a line of the table: one cache line."""
FEATURES = 4
"""Features of a corner at one level."""
SAMPLE_CHUNK = 2048
RAY_CHUNK = 32
LOG_DENSITY_MAX = np.float32(11.0)
OPAQUE = np.float32(1e-3)
"""Transmittance below which a ray is finished."""
THIRD = np.float32(1.0 / 3.0)

_ONE = np.float32(1.0)
_TWO = np.float32(2.0)
_ZERO = np.float32(0.0)

_jit = njit(fastmath=True, cache=True, nogil=True, error_model="numpy")
_compiled_parallel = njit(fastmath=True, cache=True, nogil=True, error_model="numpy", parallel=True)


def _parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    return in_turn(_compiled_parallel(function))


@_jit
@no_type_check
def level_of(resolution, lines):
    """Level's constants: cells a side as float, bricks a side, whether every brick has a line, mask of the hash."""
    bricks = resolution // 2 + 1
    dense = (resolution + 1) * bricks * bricks <= lines
    return np.float32(resolution), np.uint32(bricks), dense, np.uint32(lines - 1)


@_jit
@no_type_check
def cell_of(positions, j, scale):
    """Lowest corner of the cell around position j, and where in the cell it lies, 0 to 1."""
    px, py, pz = positions[j, 0] * scale, positions[j, 1] * scale, positions[j, 2] * scale
    ix, iy, iz = np.uint32(px), np.uint32(py), np.uint32(pz)
    return ix, iy, iz, px - np.float32(ix), py - np.float32(iy), pz - np.float32(iz)


@_jit
@no_type_check
def place_of(x, y, z, bricks, dense, mask):
    """Line of a corner in its level's table, and its first float there."""
    one = np.uint32(1)
    by, bz = y >> one, z >> one
    first = np.int64(((y & one) * np.uint32(2) + (z & one)) * np.uint32(FEATURES))
    if dense:
        return np.int64((x * bricks + by) * bricks + bz), first
    return np.int64((np.uint32(x * np.uint32(805459861)) ^ np.uint32(by * np.uint32(2654435761)) ^ bz) & mask), first


@_jit
@no_type_check
def level_of_task(task, levels):
    """Even levels first, then odd ones: two threads share the coarse, cheap levels and the fine, dear ones alike."""
    even = (levels + 1) // 2
    return 2 * task if task < even else 2 * (task - even) + 1


@_parallel
@no_type_check
def encode(positions, table, lines, resolutions, encoded):
    """Features of unit-cube positions [n, 3] into encoded [n, 4 L]; a level has `lines` lines of the table."""
    chunks = (len(positions) + SAMPLE_CHUNK - 1) // SAMPLE_CHUNK
    # Level by level: one level's lines stay in the core's cache.
    for task in prange(len(resolutions) * chunks):
        level, chunk = level_of_task(task // chunks, len(resolutions)), task % chunks
        scale, bricks, dense, mask = level_of(resolutions[level], lines)
        base = level * lines
        for j in range(chunk * SAMPLE_CHUNK, min((chunk + 1) * SAMPLE_CHUNK, len(positions))):
            ix, iy, iz, fx, fy, fz = cell_of(positions, j, scale)
            a = b = c = d = _ZERO
            for corner in range(8):
                cx, cy, cz = np.uint32(corner & 1), np.uint32((corner >> 1) & 1), np.uint32(corner >> 2)
                weight = (fx if cx else _ONE - fx) * (fy if cy else _ONE - fy) * (fz if cz else _ONE - fz)
                at, k = place_of(ix + cx, iy + cy, iz + cz, bricks, dense, mask)
                at += base
                a += weight * table[at, k]
                b += weight * table[at, k + 1]
                c += weight * table[at, k + 2]
                d += weight * table[at, k + 3]
            first = FEATURES * level
            encoded[j, first] = a
            encoded[j, first + 1] = b
            encoded[j, first + 2] = c
            encoded[j, first + 3] = d


@_parallel
@no_type_check
def scatter(positions, grad_encoded, lines, resolutions, slots, index, values, counts):
    """Sum the gradient [n, 4 L] of every encoding over the lines it was interpolated from.

    slots [L * lines] is -1 everywhere on entry and left so; a line met for the first time gets the next slot of its
    level: index [L, capacity] tells the line, values [L, capacity, 16] its gradient, counts [L] how many there are.
    """
    for task in prange(len(resolutions)):
        level = level_of_task(task, len(resolutions))
        scale, bricks, dense, mask = level_of(resolutions[level], lines)
        base = level * lines
        line_of_slot, sums = index[level], values[level]
        first = FEATURES * level
        found = 0
        for j in range(len(positions)):
            a, b = grad_encoded[j, first], grad_encoded[j, first + 1]
            c, d = grad_encoded[j, first + 2], grad_encoded[j, first + 3]
            if a == _ZERO and b == _ZERO and c == _ZERO and d == _ZERO:
                continue
            ix, iy, iz, fx, fy, fz = cell_of(positions, j, scale)
            for corner in range(8):
                cx, cy, cz = np.uint32(corner & 1), np.uint32((corner >> 1) & 1), np.uint32(corner >> 2)
                weight = (fx if cx else _ONE - fx) * (fy if cy else _ONE - fy) * (fz if cz else _ONE - fz)
                at, k = place_of(ix + cx, iy + cy, iz + cz, bricks, dense, mask)
                at += base
                slot = slots[at]
                if slot < 0:
                    slot = found
                    slots[at] = found
                    line_of_slot[found] = at
                    found += 1
                    for i in range(LINE):
                        sums[slot, i] = _ZERO
                sums[slot, k] += weight * a
                sums[slot, k + 1] += weight * b
                sums[slot, k + 2] += weight * c
                sums[slot, k + 3] += weight * d
        for slot in range(found):
            slots[line_of_slot[slot]] = -1
        counts[level] = found


@_parallel
@no_type_check
def pack(index, values, counts, packed_index, packed_values):
    """What `scatter` left level by level as one list: packed_index [n], packed_values [n, 16]."""
    for level in prange(len(counts)):
        first = 0
        for earlier in range(level):
            first += counts[earlier]
        for i in range(counts[level]):
            packed_index[first + i] = index[level, i]
            for k in range(LINE):
                packed_values[first + i, k] = values[level, i, k]


@_parallel
@no_type_check
def slopes(positions, grad_encoded, table, lines, resolutions, grad_positions):
    """Gradient [n, 3] by the positions, given that [n, 4 L] by their encoding."""
    for chunk in prange((len(positions) + SAMPLE_CHUNK - 1) // SAMPLE_CHUNK):
        for j in range(chunk * SAMPLE_CHUNK, min((chunk + 1) * SAMPLE_CHUNK, len(positions))):
            gx = gy = gz = _ZERO
            for level in range(len(resolutions)):
                scale, bricks, dense, mask = level_of(resolutions[level], lines)
                ix, iy, iz, fx, fy, fz = cell_of(positions, j, scale)
                for corner in range(8):
                    cx, cy, cz = np.uint32(corner & 1), np.uint32((corner >> 1) & 1), np.uint32(corner >> 2)
                    at, first = place_of(ix + cx, iy + cy, iz + cz, bricks, dense, mask)
                    at += level * lines
                    value = _ZERO
                    for k in range(FEATURES):
                        value += table[at, first + k] * grad_encoded[j, FEATURES * level + k]
                    value *= scale
                    wx, wy, wz = (fx if cx else _ONE - fx), (fy if cy else _ONE - fy), (fz if cz else _ONE - fz)
                    gx += (value if cx else -value) * wy * wz
                    gy += (value if cy else -value) * wx * wz
                    gz += (value if cz else -value) * wx * wy
            grad_positions[j, 0] = gx
            grad_positions[j, 1] = gy
            grad_positions[j, 2] = gz


@_parallel
@no_type_check
def weigh(log_density, offsets, t_step, density_scale, weights):
    """Weight w_i = T_i (1 - exp(-sigma_i dt_i)) of every sample into weights [n]; -1 where the ray had ended."""
    rays = len(offsets) - 1
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            reached = _ONE
            for j in range(offsets[ray], offsets[ray + 1]):
                if reached < OPAQUE:
                    weights[j] = -_ONE
                    continue
                local = np.exp(min(log_density[j], LOG_DENSITY_MAX))
                through = np.exp(-local * t_step[j] * density_scale)
                weights[j] = reached * (_ONE - through)
                reached *= through


@_parallel
@no_type_check
def composite_forward(log_density, values, offsets, t_mid, t_step, density_scale, out, saved, density):
    """Sums along rays: out [rays, C + 3] = sum w v (C), sum w t, sum w, and how far the weight is spread along the ray,
    sum_ij w_i w_j |s_i - s_j| + sum_i w_i^2 ds_i / 3 with s = log t (Barron et al. 2022, eq. 15).

    values [n, C]. saved [n, 3] keeps w, T and sigma dt of each sample for `composite_backward` (w = -1: not reached);
    density [n] gets exp(log density) for the occupancy grid (-1: not reached).
    """
    rays = len(offsets) - 1
    channels = values.shape[1]
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            for k in range(channels):
                out[ray, k] = _ZERO
            reached = _ONE
            depth = opacity = moment = distortion = _ZERO
            for j in range(offsets[ray], offsets[ray + 1]):
                if reached < OPAQUE:
                    saved[j, 0] = -_ONE
                    density[j] = -_ONE
                    continue
                local = np.exp(min(log_density[j], LOG_DENSITY_MAX))
                optical = local * t_step[j] * density_scale
                through = np.exp(-optical)
                w = reached * (_ONE - through)
                for k in range(channels):
                    out[ray, k] += w * values[j, k]
                s = np.log(t_mid[j])
                distortion += w * (_TWO * (s * opacity - moment) + w * THIRD * t_step[j] / t_mid[j])
                depth += w * t_mid[j]
                moment += w * s
                opacity += w
                saved[j, 0] = w
                saved[j, 1] = reached
                saved[j, 2] = optical
                density[j] = local
                reached *= through
            out[ray, channels] = depth
            out[ray, channels + 1] = opacity
            out[ray, channels + 2] = distortion


@_parallel
@no_type_check
def composite_backward(
    log_density, values, offsets, t_mid, t_step, saved, grad_out, grad_density, grad_log_density, grad_values
):
    """Gradients of `composite_forward` by log_density [n] and values [n, C].

    A density enters the outputs through the weights alone: with v_i the gradient by w_i,
    d / d log sigma_i = sigma_i dt_i (T_{i+1} v_i - sum_{j>i} w_j v_j). To it comes what hangs on the density itself.
    """
    rays = len(offsets) - 1
    channels = values.shape[1]
    for chunk in prange((rays + RAY_CHUNK - 1) // RAY_CHUNK):
        for ray in range(chunk * RAY_CHUNK, min((chunk + 1) * RAY_CHUNK, rays)):
            g_depth, g_opacity = grad_out[ray, channels], grad_out[ray, channels + 1]
            g_distortion = grad_out[ray, channels + 2]
            total = total_moment = _ZERO
            for j in range(offsets[ray], offsets[ray + 1]):
                w = max(saved[j, 0], _ZERO)
                total += w
                total_moment += w * np.log(t_mid[j])
            behind = after = after_moment = _ZERO
            for j in range(offsets[ray + 1] - 1, offsets[ray] - 1, -1):
                w = saved[j, 0]
                if w < _ZERO:
                    grad_log_density[j] = _ZERO
                    for k in range(channels):
                        grad_values[j, k] = _ZERO
                    continue
                s = np.log(t_mid[j])
                before, before_moment = total - after - w, total_moment - after_moment - w * s
                apart = s * (before - after) - (before_moment - after_moment) + w * THIRD * t_step[j] / t_mid[j]
                value = g_depth * t_mid[j] + g_opacity + _TWO * g_distortion * apart
                for k in range(channels):
                    value += grad_out[ray, k] * values[j, k]
                    grad_values[j, k] = w * grad_out[ray, k]
                if log_density[j] < LOG_DENSITY_MAX:
                    own = np.exp(log_density[j]) * grad_density[j]
                    grad_log_density[j] = saved[j, 2] * ((saved[j, 1] - w) * value - behind) + own
                else:
                    grad_log_density[j] = _ZERO
                behind += w * value
                after += w
                after_moment += w * s
