"""CPU kernels (numba) of the brick atlas: fill bricks from a baked field's rows, measure empty space, march rays.

The atlas. Every occupied cell of the occupancy grid has a brick of 2^3, 3^3 or 5^3 vertices (1, 2 or 4 intervals a
side, both borders included). A vertex holds 1 (SH degree 0) or 4 texels (degree 1) of RGBA bytes: texel 0 =
(red, green, blue, log density), texels 1 to 3 = (red, green, blue, spare) that turn with x, y, z of the direction of
view. One word of 32 bits says what a cell holds:

    bits 0-21 number of the brick among those of its kind, bits 22-23 kind (0: empty, 1, 2, 3: 1, 2, 4 intervals),
    bits 24-31 code of the cell's density, or, if empty, the Chebyshev distance in cells to the nearest occupied cell

The contraction and the rows' places are those of `kernels.cpu`. Kernels release the GIL, so threads are Python's; they
are compiled once and cached. Numba's cache does not notice changes in other files: what is hot is written out here.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from crowdnerf_lab.kernels.cpu import SH1, corner_row

KIND_SHIFT, BYTE_SHIFT = 22, 24
BRICK_MASK = (1 << KIND_SHIFT) - 1
FARTHEST = 255
"""Largest distance to occupied space that a cell can tell, in cells."""
TILE = 8
"""Pixels a side of the square that is marched together, so that its rays meet the same bricks."""
WIDEST = 5 * 5 * 5
"""Vertices of the largest brick."""
OPAQUE = np.float32(1 / 256)
"""Transmittance below which a ray is finished: what follows changes no byte of the picture by more than one."""

_ONE = np.float32(1.0)
_HALF = np.float32(0.5)
_ZERO = np.float32(0.0)
_ZERO_CODE = np.float32(128.0)

_jit = njit(fastmath=True, cache=True, nogil=True, error_model="numpy")
# Not left to the linker: a process that compiled a callee itself would link that copy of it, one that found its caller
# compiled the copy inside, and the two differ in the last bit.
_inlined = njit(fastmath=True, inline="always", error_model="numpy")


@_jit
@no_type_check
def distances(words, cells):
    """Write into the words [cells^3] of empty cells their Chebyshev distance to the nearest occupied cell, at most
    FARTHEST, in two sweeps over the 26 neighbours (exact for this metric: Rosenfeld and Pfaltz 1966)."""
    far = np.uint8(FARTHEST)
    side = cells + 2  # a border of far cells spares the sweeps all questions about the edge
    distance = np.full(side * side * side, far, np.uint8)
    for x in range(cells):
        for y in range(cells):
            for z in range(cells):
                if words[(x * cells + y) * cells + z] >> KIND_SHIFT & 3:
                    distance[((x + 1) * side + y + 1) * side + z + 1] = 0
    before = np.empty(13, np.int64)
    n = 0
    for dx in range(-1, 1):
        for dy in range(-1, 2):
            for dz in range(-1, 2):
                offset = (dx * side + dy) * side + dz
                if offset < 0:
                    before[n] = offset
                    n += 1
    for sweep in range(2):
        for i in range(cells * cells * cells):
            j = i if sweep == 0 else cells * cells * cells - 1 - i
            at = ((j // (cells * cells) + 1) * side + j // cells % cells + 1) * side + j % cells + 1
            nearest = distance[at]
            if nearest > 1:
                for k in range(13):
                    nearest = min(nearest, min(distance[at + before[k]], far - np.uint8(1)) + np.uint8(1))
                distance[at] = nearest
            if sweep == 1 and nearest:
                words[j] = np.uint32(nearest) << np.uint32(BYTE_SHIFT)
        for k in range(13):
            before[k] = -before[k]


@_jit
@no_type_check
def intervals_needed(chosen, cells, place, rows, resolutions, out):
    """Intervals a side, 1, 2 or 4, of the brick of each chosen cell [n]: enough for the finest level that keeps a row
    (place [levels * rows] > 0) at one of its corners there."""
    mask = np.uint32(rows - 1)
    for n in range(len(chosen)):
        cx, cy, cz = chosen[n] // (cells * cells), chosen[n] // cells % cells, chosen[n] % cells
        out[n] = 1
        for level in range(len(resolutions) - 1, -1, -1):
            r = resolutions[level]
            if r <= cells or out[n] > 1:
                break
            dense = (r + 1) ** 3 <= rows
            for ix in range(cx * r // cells, ((cx + 1) * r + cells - 1) // cells + 1):
                for iy in range(cy * r // cells, ((cy + 1) * r + cells - 1) // cells + 1):
                    for iz in range(cz * r // cells, ((cz + 1) * r + cells - 1) // cells + 1):
                        at = corner_row(np.uint32(r), dense, mask, np.uint32(ix), np.uint32(iy), np.uint32(iz))
                        if place[level * rows + at]:
                            out[n] = 2 if r <= 2 * cells else 4


@_jit
@no_type_check
def add_level(buffer, intervals, cx, cy, cz, cells, level, values, place, scales, rows, resolution):
    """Add a level's interpolated rows at the vertices of a cell's brick to buffer [vertices, 16].

    A vertex that coincides with the level's grid along an axis reads no corner beyond it.
    """
    mask = np.uint32(rows - 1)
    dense = (resolution + 1) ** 3 <= rows
    parts = cells * intervals
    v = 0
    for i in range(cx * intervals, (cx + 1) * intervals + 1):
        x0, fx = i * resolution // parts, np.float32(i * resolution % parts) / np.float32(parts)
        for j in range(cy * intervals, (cy + 1) * intervals + 1):
            y0, fy = j * resolution // parts, np.float32(j * resolution % parts) / np.float32(parts)
            for k in range(cz * intervals, (cz + 1) * intervals + 1):
                z0, fz = k * resolution // parts, np.float32(k * resolution % parts) / np.float32(parts)
                for dx in range(2 if fx else 1):
                    wx = fx if dx else _ONE - fx
                    for dy in range(2 if fy else 1):
                        wy = wx * (fy if dy else _ONE - fy)
                        for dz in range(2 if fz else 1):
                            weight = wy * (fz if dz else _ONE - fz)
                            x, y, z = np.uint32(x0 + dx), np.uint32(y0 + dy), np.uint32(z0 + dz)
                            at = place[level * rows + corner_row(np.uint32(resolution), dense, mask, x, y, z)]
                            if at:
                                for c in range(16):
                                    buffer[v, c] += weight * scales[level, c] * np.float32(values[at, c])
                v += 1


@_jit
@no_type_check
def halved(buffer, intervals, out):
    """Interpolate a brick of so many intervals a side at twice as many, from buffer into out [vertices, 16]."""
    side = intervals + 1
    v = 0
    for i in range(2 * intervals + 1):
        for j in range(2 * intervals + 1):
            for k in range(2 * intervals + 1):
                a, b = ((i // 2) * side + j // 2) * side, ((i // 2) * side + (j + 1) // 2) * side
                c, d = (((i + 1) // 2) * side + j // 2) * side, (((i + 1) // 2) * side + (j + 1) // 2) * side
                near, far = k // 2, (k + 1) // 2
                for n in range(16):
                    out[v, n] = np.float32(0.125) * (
                        buffer[a + near, n]
                        + buffer[a + far, n]
                        + buffer[b + near, n]
                        + buffer[b + far, n]
                        + buffer[c + near, n]
                        + buffer[c + far, n]
                        + buffer[d + near, n]
                        + buffer[d + far, n]
                    )
                v += 1


@_jit
@no_type_check
def fill_brick(cell, intervals, cells, values, place, scales, rows, resolutions, buffers):
    """The field's rows at the vertices of a cell's brick: buffers[b, :vertices] of the b that is returned.

    Levels up to `cells` are looked up at the cell's corners, the next at half, the finest at quarter intervals: exact
    where each resolution divides, or is a multiple of, the next, and none is above 4 cells.
    """
    cx, cy, cz = cell // (cells * cells), cell // cells % cells, cell % cells
    for v in range(8):
        for c in range(16):
            buffers[0, v, c] = _ZERO
    now, reach = 0, 1
    while True:
        for level in range(len(resolutions)):
            r = resolutions[level]
            lowest = 0 if reach == 1 else reach // 2 * cells
            if lowest < r and (r <= reach * cells or reach == 4):
                add_level(buffers[now], reach, cx, cy, cz, cells, level, values, place, scales, rows, r)
        if reach == intervals:
            return now
        halved(buffers[now], reach, buffers[1 - now])
        now, reach = 1 - now, 2 * reach


@_jit
@no_type_check
def fill_bricks(
    chosen, intervals, firsts, cells, values, place, scales, rows, resolutions, units, zeros, texels, low, high
):
    """Fill the atlas, texels [vertices, 4 or 16], with the bricks of chosen cells [n], of which each begins at vertex
    firsts[n]: numbers / units [16] + zeros [16], rounded and cut to bytes. low, high [16] widen to what was met."""
    per_unit = _ONE / units
    buffers = np.empty((2, WIDEST, 16), np.float32)
    width = texels.shape[1]
    for n in range(len(chosen)):
        filled = fill_brick(chosen[n], intervals[n], cells, values, place, scales, rows, resolutions, buffers)
        first = firsts[n]
        for v in range((intervals[n] + 1) ** 3):
            for c in range(width):
                number = buffers[filled, v, c]
                low[c], high[c] = min(low[c], number), max(high[c], number)
                code = number * per_unit[c] + (zeros[c] + _HALF)
                texels[first + v, c] = np.uint8(min(max(code, _ZERO), np.float32(255.0)))


@_inlined
@no_type_check
def bent(x, y, z):
    """`contracted` of kernels.cpu between other bounds: box units (the box is [-1, 1]^3) to (-2, 2)."""
    ax, ay, az = abs(x), abs(y), abs(z)
    largest = max(ax, max(ay, az))
    if largest > _ONE:
        inverse = _ONE / largest
        bend = (np.float32(2.0) - inverse) * inverse
        x *= bend if ax == largest else inverse
        y *= bend if ay == largest else inverse
        z *= bend if az == largest else inverse
    return x, y, z


@_inlined
@no_type_check
def clear(x, y, z, reach, size):
    """How far, in box units along the axis on which it is fastest, a ray at (x, y, z) moves less than `reach` cells of
    `size` in the contracted cube (-2, 2).

    Inside the box a cell is a cell. Outside, no bent coordinate moves more than twice as fast as the world's largest,
    until another axis becomes the largest: there the contraction jumps, so nobody leaps across.
    """
    x, y, z = abs(x), abs(y), abs(z)
    largest = max(x, max(y, z))
    if largest <= _ONE:
        return min(reach * size, _ONE - largest)
    second = max(min(x, y), min(max(x, y), z))
    return _HALF * min(reach * size, largest - second)


@_inlined
@no_type_check
def decayed(x):
    """exp(-x) for x > -1024 as (1 - x / 1024)^1024: off by at most 3e-4, and no call in the inner loop."""
    y = max(_ONE - x * np.float32(1 / 1024), _ZERO)
    for _ in range(10):
        y *= y
    return y


@_jit
@no_type_check
def march_rows(
    first,
    last,
    width,
    pose,
    focal,
    principal,
    box_centre,
    inverse_half,
    starts,
    ratio,
    refine,
    finest,
    words,
    cells,
    kind_firsts,
    cell_densities,
    densities,
    texels,
    units,
    background,
    out,
):
    """March the rays of pixel rows [first, last) of a pinhole camera: out [h * w, 5] = colour over the background (3),
    mean t in metres, opacity.

    pose [3, 4] camera-to-world; starts [steps] of the geometric steps t -> ratio t, in metres; words [cells^3];
    kind_firsts [4]: first vertex of the bricks of a kind; densities per metre: cell_densities [256] of a cell's
    code, densities [256 n] of an interpolated code in nths; texels [vertices, 4 or 16] in units [16], 128 is zero.
    Steps are divided as in `kernels.cpu.march`; through empty space a ray leaps from start to start.
    """
    steps = len(starts)
    middle = _HALF * (_ONE + ratio)
    size = np.float32(4.0) / np.float32(cells)
    per_cell = _ONE / size
    turning = texels.shape[1] == 16
    per_code = np.float32(len(densities) // 256)
    ox = (pose[0, 3] - box_centre[0]) * inverse_half[0]
    oy = (pose[1, 3] - box_centre[1]) * inverse_half[1]
    oz = (pose[2, 3] - box_centre[2]) * inverse_half[2]
    row = np.empty(16, np.float32)
    basis = np.empty(16, np.float32)
    shade = np.empty(4, np.float32)
    columns = (width + TILE - 1) // TILE
    pixels = (last - first) * TILE
    for pixel in range(columns * pixels):
        u = pixel // pixels * TILE + pixel % TILE
        v = first + pixel % pixels // TILE
        if u >= width:
            continue
        px = (np.float32(u) + _HALF - principal[0]) / focal[0]
        py = (np.float32(v) + _HALF - principal[1]) / focal[1]
        norm = _ONE / np.sqrt(px * px + py * py + _ONE)
        wx = (pose[0, 0] * px + pose[0, 1] * py + pose[0, 2]) * norm
        wy = (pose[1, 0] * px + pose[1, 1] * py + pose[1, 2]) * norm
        wz = (pose[2, 0] * px + pose[2, 1] * py + pose[2, 2]) * norm
        dx, dy, dz = wx * inverse_half[0], wy * inverse_half[1], wz * inverse_half[2]
        for c in range(4):
            basis[c] = units[c]
            basis[4 + c] = SH1 * wx * units[4 + c]
            basis[8 + c] = SH1 * wy * units[8 + c]
            basis[12 + c] = SH1 * wz * units[12 + c]
        a_unit = _ONE / max(abs(dx), max(abs(dy), abs(dz)))
        reached = expected = _ONE
        red = green = blue = depth = opacity = _ZERO
        k = 0
        while k < steps and reached >= OPAQUE:
            t = starts[k]
            m = t * middle
            x, y, z = bent(ox + dx * m, oy + dy * m, oz + dz * m)
            x = (x + np.float32(2.0)) * per_cell
            y = (y + np.float32(2.0)) * per_cell
            z = (z + np.float32(2.0)) * per_cell
            ix, iy, iz = min(np.int32(x), cells - 1), min(np.int32(y), cells - 1), min(np.int32(z), cells - 1)
            word = words[np.uint64((ix * cells + iy) * cells + iz)]
            k += 1
            if not word >> KIND_SHIFT & 3:
                free = clear(ox + dx * m, oy + dy * m, oz + dz * m, np.float32(word >> BYTE_SHIFT) - _ONE, size)
                end = m + free * a_unit
                while k < steps and starts[k] * middle < end:
                    k += 1
                continue
            step = t * (ratio - _ONE)
            through = decayed(cell_densities[word >> BYTE_SHIFT] * step)
            parts = min(max(np.int32(np.ceil(refine * expected * (_ONE - through))), 1), finest)
            expected *= through
            part = step / np.float32(parts)
            for i in range(parts):
                if parts > 1:
                    m = t + (np.float32(i) + _HALF) * part
                    x, y, z = bent(ox + dx * m, oy + dy * m, oz + dz * m)
                    x = (x + np.float32(2.0)) * per_cell
                    y = (y + np.float32(2.0)) * per_cell
                    z = (z + np.float32(2.0)) * per_cell
                    ix, iy, iz = min(np.int32(x), cells - 1), min(np.int32(y), cells - 1), min(np.int32(z), cells - 1)
                    word = words[np.uint64((ix * cells + iy) * cells + iz)]
                kind = word >> KIND_SHIFT & 3
                if kind == 0:
                    continue
                intervals = np.int32(1) << (np.int32(kind) - np.int32(1))
                side = np.uint64(intervals + 1)
                fx = (x - np.float32(ix)) * np.float32(intervals)
                fy = (y - np.float32(iy)) * np.float32(intervals)
                fz = (z - np.float32(iz)) * np.float32(intervals)
                jx, jy, jz = (
                    min(np.int32(fx), intervals - 1),
                    min(np.int32(fy), intervals - 1),
                    min(np.int32(fz), intervals - 1),
                )
                fx, fy, fz = fx - np.float32(jx), fy - np.float32(jy), fz - np.float32(jz)
                a = (
                    np.uint64(kind_firsts[kind])
                    + ((np.uint64(word & BRICK_MASK) * side + np.uint64(jx)) * side + np.uint64(jy)) * side
                    + np.uint64(jz)
                )
                b = a + side
                c = a + side * side
                d = c + side
                gx, gy, gz = _ONE - fx, _ONE - fy, _ONE - fz
                w00, w01, w10, w11 = gx * gy, gx * fy, fx * gy, fx * fy
                if turning:
                    blend(texels, a, b, c, d, w00, w01, w10, w11, gz, fz, 16, row)
                else:
                    blend(texels, a, b, c, d, w00, w01, w10, w11, gz, fz, 4, row)
                through = decayed(densities[np.uint64(row[3] * per_code)] * part)
                w = reached * (_ONE - through)
                depth += w * m
                opacity += w
                reached *= through
                if turning:
                    for n in range(4):
                        shade[n] = (
                            (row[n] - _ZERO_CODE) * basis[n]
                            + (row[4 + n] - _ZERO_CODE) * basis[4 + n]
                            + (row[8 + n] - _ZERO_CODE) * basis[8 + n]
                            + (row[12 + n] - _ZERO_CODE) * basis[12 + n]
                        )
                else:
                    for n in range(4):
                        shade[n] = (row[n] - _ZERO_CODE) * basis[n]
                for n in range(4):
                    shade[n] = w / (_ONE + decayed(shade[n]))
                red += shade[0]
                green += shade[1]
                blue += shade[2]
        ray = v * width + u
        out[ray, 0] = red + (_ONE - opacity) * background[0]
        out[ray, 1] = green + (_ONE - opacity) * background[1]
        out[ray, 2] = blue + (_ONE - opacity) * background[2]
        out[ray, 3] = depth / max(opacity, np.float32(1e-6))
        out[ray, 4] = opacity


@_inlined
@no_type_check
def blend(texels, a, b, c, d, w00, w01, w10, w11, gz, fz, numbers, row):
    """Interpolate texels [vertices, numbers] between four vertices, and the ones after them along z, into row."""
    one = np.uint64(1)
    e, f, g, h = a + one, b + one, c + one, d + one
    for n in range(numbers):
        row[n] = (
            w00 * (gz * np.float32(texels[a, n]) + fz * np.float32(texels[e, n]))
            + w01 * (gz * np.float32(texels[b, n]) + fz * np.float32(texels[f, n]))
            + w10 * (gz * np.float32(texels[c, n]) + fz * np.float32(texels[g, n]))
            + w11 * (gz * np.float32(texels[d, n]) + fz * np.float32(texels[h, n]))
        )
