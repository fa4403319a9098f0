"""What a WebGL2 fragment shader does with brick textures, in numpy: it reads textures and uniforms, nothing else."""

import numpy as np

from crowdnerf_lab.fields.brick_textures import BrickTextures


def sampled(texture: np.ndarray, at: np.ndarray) -> np.ndarray:
    """texture() of a 3-D RGBA8 texture with LINEAR filtering and CLAMP_TO_EDGE at (s, t, r) [n 3] in texels: [n 4]."""
    at = at - 0.5
    low = np.floor(at).astype(int)
    fraction = at - low
    total = np.zeros((len(at), 4))
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, fraction, 1 - fraction).prod(-1)
        s, t, r = np.clip(low + corner, 0, np.array(texture.shape[2::-1]) - 1).T
        total += weight[:, None] * (texture[r, t, s] / 255)
    return total


def cell_at(textures: BrickTextures, position: np.ndarray) -> tuple[np.ndarray, ...]:
    """Kind, brick and alpha byte of the cells at world positions [n 3], and the fraction inside the cell [n 3]."""
    p = (position - textures.centre) / textures.half_size
    m = np.abs(p).max(-1, keepdims=True)
    outside = np.maximum(m, 1)
    p = p / outside * np.where(np.abs(p) == m, 2 - 1 / outside, 1)
    side = len(textures.cells)
    scaled = np.clip((p / 4 + 0.5) * side, 0, side - 1e-4)
    cell = scaled.astype(int)
    rgba = textures.cells[cell[:, 0], cell[:, 1], cell[:, 2]].astype(int)
    word = rgba[:, 0] + 256 * rgba[:, 1] + 65536 * rgba[:, 2]
    return word >> 22, word & (1 << 22) - 1, rgba[:, 3], scaled - cell


def matter_at(
    textures: BrickTextures, kind: np.ndarray, brick: np.ndarray, fraction: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Density per metre [n] and colour [n 3] in bricks."""
    v = np.array([0, 2, 3, 5])[kind]
    _, height, width = textures.bricks.shape[:3]
    wide = v * len(textures.units)
    across, down = width // wide, height // v
    begin = np.array([0, *textures.kind_begins])[kind]
    corner = np.stack(
        [wide * (brick % across), v * (brick // across % down), begin + v * (brick // across // down)], -1
    )
    at = corner + 0.5 + (v - 1)[:, None] * fraction[:, ::-1]
    turned = [np.ones(len(v)), *(np.sqrt(3) * directions).T]
    logit, log_density = np.zeros((len(v), 3)), np.zeros(len(v))
    for texel, units in enumerate(textures.units):
        byte = 255 * sampled(textures.bricks, at + texel * np.stack([v, 0 * v, 0 * v], -1))
        logit += turned[texel][:, None] * (byte[:, :3] - 128) * units[:3]
        if texel == 0:
            log_density = (byte[:, 3] - textures.zero_log_density) * units[3]
    return textures.density_scale * np.exp(np.minimum(log_density, 11)), 1 / (1 + np.exp(-logit))


def march(textures: BrickTextures, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Colours [n 3] of rays from one origin along unit directions [n 3]."""
    colour, passes, expected = np.zeros_like(directions), np.ones(len(directions)), np.ones(len(directions))
    a_unit = 1 / np.abs(directions / textures.half_size).max(-1)
    wait_until = np.zeros(len(directions))
    t = textures.near * textures.ratio**0.5
    while (middle := t * (1 + textures.ratio) / 2) < textures.far:
        length = t * (textures.ratio - 1)
        (rays,) = np.nonzero((middle >= wait_until) & (passes >= 1 / 256))
        kind, _, alpha, _ = cell_at(textures, origin + middle * directions[rays])
        empty = kind == 0
        p = np.sort(np.abs((origin + middle * directions[rays[empty]] - textures.centre) / textures.half_size))
        cells, inside = 4 * (alpha[empty] - 1) / len(textures.cells), p[:, 2] <= 1
        free = np.where(inside, np.minimum(cells, 1 - p[:, 2]), np.minimum(cells, p[:, 2] - p[:, 1]) / 2)
        wait_until[rays[empty]] = middle + free * a_unit[rays[empty]]
        rays, alpha = rays[~empty], alpha[~empty]
        through = np.exp(-np.exp((alpha - 128) / 16) * textures.density_scale * length)
        parts = np.clip(np.ceil(textures.refine * expected[rays] * (1 - through)), 1, textures.finest)
        expected[rays] *= through
        for i in range(int(parts.max(initial=0))):
            now, each = rays[i < parts], parts[i < parts]
            part = length / each
            position = origin + (t + (i + 0.5) * part)[:, None] * directions[now]
            kind, brick, _, fraction = cell_at(textures, position)
            some = kind > 0
            now = now[some]
            density, shade = matter_at(textures, kind[some], brick[some], fraction[some], directions[now])
            through = np.exp(-density * part[some])
            colour[now] += (passes[now] * (1 - through))[:, None] * shade
            passes[now] *= through
        t *= textures.ratio
    return colour + passes[:, None] * textures.background


def picture(
    textures: BrickTextures,
    camera_to_world: np.ndarray,
    focal: tuple[float, float],
    *,
    centre: tuple[float, float],
    width: int,
    height: int,
) -> np.ndarray:
    """The view of a pinhole camera [h w 3]."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    plane = np.stack([(u - centre[0]) / focal[0], (v - centre[1]) / focal[1], np.ones_like(u)], -1).reshape(-1, 3)
    directions = plane @ np.asarray(camera_to_world, np.float64)[:, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return march(textures, np.asarray(camera_to_world)[:, 3], directions).reshape(height, width, 3)
