"""python data/object/generate.py --out DIR: render the bundled object again, or a larger one.

An amplifier, a drum, a cymbal and a microphone on its stand, in boxes, cylinders and balls, seen from the upper half of
a sphere. Every ray is intersected exactly; light is two lamps with hard shadows, a dim sky and, on gloss, the sky's
reflection. Nothing is sampled at random except where the cameras stand.
"""

import argparse
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit
from PIL import Image

RADIUS = 4.0
"""Distance of the cameras from the origin."""
ANGLE = 0.6911112070083618
"""Horizontal field of view of the NeRF-synthetic scenes, radians."""
SHARES = {"train": 100, "val": 20, "test": 20}
LOWEST = math.radians(4)
"""Least elevation of a camera."""
DEPTH_UNIT = 10_000
"""Depth maps hold depth along the optical axis times this; 0 where nothing is hit."""
LAMPS = (
    ((3.0, -4.0, 5.0), (30.0, 28.0, 25.0)),
    ((-4.5, -1.5, 3.0), (9.0, 11.0, 14.0)),
    ((0.5, 4.0, 3.5), (8.0, 8.0, 8.5)),
)
"""Position and intensity of each lamp; the last one casts no shadow."""
SHADOWS = 2
BOX, CYLINDER, BALL = 0, 1, 2

Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From points in a solid's own frame and its normals there to linear base colours."""


@dataclass(frozen=True)
class Material:
    """texture: base colour. gloss: share of light reflected as by lacquer at right angles (metal: all of it, tinted).
    sharpness: of the lamps' highlights, Blinn's exponent."""

    texture: Texture
    gloss: float = 0.03
    sharpness: float = 20.0
    metal: bool = False


@dataclass(frozen=True)
class Solid:
    """kind: BOX, CYLINDER (around its own z) or BALL. size: half sizes; a cylinder's is radius, radius, half height."""

    kind: int
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    material: Material
    frame: np.ndarray


def plain(*colour: float) -> Texture:
    return lambda points, _: np.broadcast_to(np.array(colour), points.shape)


def speckled(colour: tuple[float, float, float], *, cells: float, contrast: float) -> Texture:
    """A colour that varies from little cube to little cube."""

    def texture(points: np.ndarray, _: np.ndarray) -> np.ndarray:
        x, y, z = np.floor(points * cells).astype(np.int64).T
        mixed = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
        noise = ((mixed * 2654435761) & 0xFFFF) / 0xFFFF
        return np.array(colour) * (1 + contrast * (2 * noise[:, None] - 1))

    return texture


def amplifier_cloth(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Black vinyl; in front a woven cloth, a golden panel above it, and a white line around both."""
    colour = speckled((0.035, 0.03, 0.03), cells=110, contrast=0.45)(points, normals).copy()
    x, z = points[:, 0], points[:, 2]
    front = normals[:, 1] < -0.5
    cloth = front & (np.abs(x) < 0.50) & (z > -0.36) & (z < 0.16)
    weave = (np.floor(x * 45) + np.floor(z * 45)) % 2
    thread = 0.5 + 0.5 * np.sin(x * 260) * np.sin(z * 260)
    colour[cloth] = (np.array([0.33, 0.24, 0.12]) * (0.55 + 0.45 * weave[:, None]) * (0.75 + 0.25 * thread[:, None]))[
        cloth
    ]
    panel = front & (np.abs(x) < 0.50) & (z > 0.20) & (z < 0.36)
    brushed = 0.85 + 0.15 * np.sin(z * 700)
    colour[panel] = (np.array([0.62, 0.44, 0.16]) * brushed[:, None])[panel]
    marks = panel & (z < 0.235) & (np.mod(x * 30, 1) < 0.35)
    colour[marks] = (0.03, 0.03, 0.03)
    piping = front & (np.abs(x) < 0.52) & (z > -0.38) & (z < 0.38) & ~(cloth | panel)
    colour[piping] = (0.75, 0.73, 0.66)
    badge = cloth & (np.abs(x + 0.33) < 0.11) & (np.abs(z - 0.10) < 0.035)
    stripe = np.mod((x + z) * 26, 1) < 0.5
    colour[badge] = np.where(stripe[:, None], (0.8, 0.8, 0.82), (0.5, 0.02, 0.02))[badge]
    return colour


def drum_skin(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Red sparkle around, a white skin with a grey print on top."""
    colour = speckled((0.42, 0.015, 0.03), cells=140, contrast=0.6)(points, normals).copy()
    top = normals[:, 2] > 0.5
    r, angle = np.hypot(points[:, 0], points[:, 1]), np.arctan2(points[:, 1], points[:, 0])
    colour[top] = (0.78, 0.77, 0.72)
    ring = top & (np.abs(r - 0.22) < 0.012)
    star = top & (r < 0.10 + 0.05 * np.cos(5 * angle))
    colour[ring] = (0.2, 0.2, 0.22)
    colour[star] = (0.05, 0.10, 0.35)
    return colour


def bronze_rings(points: np.ndarray, _: np.ndarray) -> np.ndarray:
    r = np.hypot(points[:, 0], points[:, 1])
    groove = 0.8 + 0.2 * np.sin(r * 170)
    return np.array([0.75, 0.50, 0.20]) * groove[:, None]


def wire_mesh(points: np.ndarray, _: np.ndarray) -> np.ndarray:
    around = np.arctan2(points[:, 1], points[:, 0]) * 9
    up = points[:, 2] * 180
    wire = (np.sin(around + up) > 0) ^ (np.sin(around - up) > 0)
    return np.where(wire[:, None], (0.55, 0.55, 0.56), (0.12, 0.12, 0.13))


VINYL = Material(amplifier_cloth, gloss=0.03, sharpness=12)
CHROME = Material(plain(0.72, 0.73, 0.75), gloss=1, sharpness=160, metal=True)
BLACK = Material(plain(0.02, 0.02, 0.022), gloss=0.05, sharpness=50)
LACQUER = Material(drum_skin, gloss=0.06, sharpness=240)
BRONZE = Material(bronze_rings, gloss=1, sharpness=60, metal=True)
RUBBER = Material(plain(0.03, 0.03, 0.03), gloss=0.02, sharpness=8)
MESH = Material(wire_mesh, gloss=0.2, sharpness=40)
JEWEL = Material(plain(0.8, 0.02, 0.01), gloss=0.08, sharpness=300)
UPRIGHT = np.eye(3)


def along(axis: np.ndarray) -> np.ndarray:
    """Columns: a frame whose z runs along the axis."""
    z = axis / np.linalg.norm(axis)
    x = np.cross((0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0), z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=-1)


def rod(start: tuple[float, float, float], end: tuple[float, float, float], radius: float, material: Material) -> Solid:
    """A cylinder between two points."""
    a, b = np.array(start), np.array(end)
    x, y, z = (a + b) / 2
    half = float(np.linalg.norm(b - a)) / 2
    return Solid(CYLINDER, (x, y, z), (radius, radius, half), material, along(b - a))


def amplifier() -> list[Solid]:
    centre = np.array([-0.32, 0.10, -0.42])
    turn = math.radians(-18)
    frame = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1.0]])

    def at(x: float, y: float, z: float) -> tuple[float, float, float]:
        a, b, c = centre + frame @ (x, y, z)
        return a, b, c

    solids = [Solid(BOX, at(0, 0, 0), (0.56, 0.28, 0.42), VINYL, frame)]
    solids += [
        Solid(BALL, at(x, y, z), (0.05, 0.05, 0.05), CHROME, frame)
        for x in (-0.54, 0.54)
        for y in (-0.26, 0.26)
        for z in (-0.4, 0.4)
    ]
    solids += [rod(at(x, -0.27, 0.29), at(x, -0.325, 0.29), 0.032, BLACK) for x in np.linspace(-0.38, 0.26, 6)]
    solids += [rod(at(x, -0.325, 0.29), at(x, -0.332, 0.29), 0.020, CHROME) for x in np.linspace(-0.38, 0.26, 6)]
    solids += [Solid(BALL, at(0.41, -0.28, 0.28), (0.024, 0.024, 0.024), JEWEL, frame)]
    solids += [rod(at(-0.17, 0, 0.49), at(0.17, 0, 0.49), 0.025, RUBBER)]
    solids += [rod(at(x, 0, 0.42), at(x, 0, 0.49), 0.018, CHROME) for x in (-0.16, 0.16)]
    solids += [rod(at(x, y, -0.47), at(x, y, -0.42), 0.04, RUBBER) for x in (-0.45, 0.45) for y in (-0.2, 0.2)]
    return solids


def drum() -> list[Solid]:
    centre, frame = np.array([0.52, -0.18, -0.40]), along(np.array([0.16, -0.22, 1.0]))

    def at(x: float, y: float, z: float) -> tuple[float, float, float]:
        a, b, c = centre + frame @ (x, y, z)
        return a, b, c

    solids = [Solid(CYLINDER, at(0, 0, 0), (0.34, 0.34, 0.16), LACQUER, frame)]
    solids += [Solid(CYLINDER, at(0, 0, z), (0.352, 0.352, 0.014), CHROME, frame) for z in (-0.15, 0.139)]
    for angle in np.arange(8) * math.pi / 4:
        x, y = 0.365 * math.cos(angle), 0.365 * math.sin(angle)
        solids.append(rod(at(x, y, -0.15), at(x, y, 0.15), 0.008, CHROME))
        turned = frame @ np.array(
            [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
        )
        solids.append(Solid(BOX, at(0.95 * x, 0.95 * y, 0), (0.022, 0.02, 0.05), CHROME, turned))
    for angle in np.arange(3) * 2 * math.pi / 3 + 0.4:
        foot = (0.52 + 0.34 * math.cos(angle), -0.18 + 0.34 * math.sin(angle), -0.89)
        solids.append(rod(at(0, 0, -0.16), foot, 0.014, CHROME))
    return solids


def cymbal() -> list[Solid]:
    tilt = along(np.array([-0.25, -0.20, 1.0]))
    solids = [Solid(CYLINDER, (0.22, 0.58, 0.35), (0.33, 0.33, 0.005), BRONZE, tilt)]
    solids += [Solid(BALL, (0.22, 0.58, 0.352), (0.075, 0.075, 0.045), BRONZE, tilt)]
    solids += [rod((0.22, 0.58, -0.66), (0.22, 0.58, 0.43), 0.013, CHROME)]
    solids += [
        rod((0.22, 0.58, -0.62), (0.22 + 0.28 * math.cos(a), 0.58 + 0.28 * math.sin(a), -0.89), 0.011, CHROME)
        for a in np.arange(3) * 2 * math.pi / 3
    ]
    return solids


def microphone() -> list[Solid]:
    top, tip = (-0.55, -0.62, 0.42), (-0.08, -0.52, 0.74)
    solids = [rod((-0.55, -0.62, -0.72), top, 0.013, BLACK), rod((-0.75, -0.663, 0.284), tip, 0.010, CHROME)]
    solids += [Solid(BALL, top, (0.03, 0.03, 0.03), BLACK, UPRIGHT)]
    solids += [rod(tip, (0.05, -0.44, 0.70), 0.027, BLACK)]
    solids += [Solid(BALL, (0.075, -0.425, 0.692), (0.048, 0.048, 0.048), MESH, along(np.array([0.13, 0.08, -0.04])))]
    solids += [
        rod((-0.55, -0.62, -0.66), (-0.55 + 0.3 * math.cos(a), -0.62 + 0.3 * math.sin(a), -0.89), 0.011, BLACK)
        for a in np.arange(3) * 2 * math.pi / 3 + 0.9
    ]
    return solids


def everything() -> list[Solid]:
    """All solids, within a box of half sizes 1, 1, 0.9 around the origin."""
    return [*amplifier(), *drum(), *cymbal(), *microphone()]


@njit(cache=True)
def nearest_hits(origins, directions, kinds, centres, sizes, frames):  # pragma: no cover (compiled)
    """Distance (inf: none), solid and outward normal in its own frame of each ray's first hit."""
    count = len(origins)
    distance, solid, normal = np.full(count, np.inf), np.full(count, -1), np.zeros((count, 3))
    o, d, n = np.empty(3), np.empty(3), np.empty(3)
    for ray in range(count):
        for i in range(len(kinds)):
            for axis in range(3):
                o[axis] = d[axis] = 0.0
                for k in range(3):
                    o[axis] += frames[i, k, axis] * (origins[ray, k] - centres[i, k])
                    d[axis] += frames[i, k, axis] * directions[ray, k]
            near, far = -np.inf, np.inf
            n[:] = 0.0
            if kinds[i] == BALL:
                a = b = c = 0.0
                for k in range(3):
                    a += (d[k] / sizes[i, k]) ** 2
                    b += d[k] * o[k] / sizes[i, k] ** 2
                    c += (o[k] / sizes[i, k]) ** 2
                root = b * b - a * (c - 1)
                if root <= 0:
                    continue
                near = (-b - math.sqrt(root)) / a
                for k in range(3):
                    n[k] = (o[k] + near * d[k]) / sizes[i, k] ** 2
            else:
                first = 2 if kinds[i] == CYLINDER else 0
                for k in range(first, 3):
                    if d[k] == 0.0:
                        if abs(o[k]) > sizes[i, k]:
                            near = np.inf
                        continue
                    side = -1.0 if d[k] > 0 else 1.0
                    enter, leave = (side * sizes[i, k] - o[k]) / d[k], (-side * sizes[i, k] - o[k]) / d[k]
                    far = min(far, leave)
                    if enter > near:
                        near = enter
                        n[:] = 0.0
                        n[k] = side
                if kinds[i] == CYLINDER:
                    a, b = d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1]
                    c = o[0] * o[0] + o[1] * o[1] - sizes[i, 0] ** 2
                    root = b * b - a * c
                    if root <= 0 and (a > 0 or c > 0):
                        continue
                    if a > 0:
                        enter, leave = (-b - math.sqrt(root)) / a, (-b + math.sqrt(root)) / a
                        far = min(far, leave)
                        if enter > near:
                            near = enter
                            n[0], n[1], n[2] = o[0] + near * d[0], o[1] + near * d[1], 0.0
            if 1e-6 < near < far and near < distance[ray]:
                distance[ray], solid[ray] = near, i
                length = math.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2])
                for k in range(3):
                    normal[ray, k] = n[k] / length
    return distance, solid, normal


@dataclass(frozen=True)
class Stage:
    """All solids, and their figures as arrays."""

    solids: list[Solid]

    def hits(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kinds = np.array([solid.kind for solid in self.solids])
        centres, sizes = np.array([solid.centre for solid in self.solids]), np.array([s.size for s in self.solids])
        frames = np.stack([solid.frame for solid in self.solids])
        return nearest_hits(origins, directions, kinds, centres, sizes, frames)


def sky(directions: np.ndarray) -> np.ndarray:
    """What gloss reflects: a dim room with a bright window on two sides and a lamp panel above."""
    x, y, z = directions.T
    room = 0.10 + 0.16 * np.clip(z, 0, 1)
    panel = np.exp(-((((x - 0.2) / 0.35) ** 2 + ((y + 0.1) / 0.45) ** 2) ** 2)) * (z > 0) * 2.2
    window = np.exp(-(((z - 0.35) / 0.22) ** 4)) * (
        np.exp(-((x - 0.75) ** 2) / 0.06) + np.exp(-((y + 0.85) ** 2) / 0.05)
    )
    tint = np.array([0.95, 0.98, 1.05])
    return (room + panel + 1.1 * window)[:, None] * tint


def shaded(stage: Stage, points: np.ndarray, views: np.ndarray, solid: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Linear light towards the viewer from points on solids. views: unit, from the point to the eye."""
    light = np.zeros_like(points)
    base, normal = np.zeros_like(points), np.zeros_like(points)
    gloss, sharpness, metal = np.zeros(len(points)), np.zeros(len(points)), np.zeros(len(points), bool)
    for i in np.unique(solid):
        mine, thing = solid == i, stage.solids[i]
        own = (points[mine] - np.array(thing.centre)) @ thing.frame
        base[mine] = thing.material.texture(own, local[mine])
        normal[mine] = local[mine] @ thing.frame.T
        gloss[mine], sharpness[mine], metal[mine] = thing.material.gloss, thing.material.sharpness, thing.material.metal
    facing = np.clip((normal * views).sum(-1), 0, 1)
    at_right_angles = np.where(metal[:, None], base, gloss[:, None])
    fresnel = at_right_angles + (1 - at_right_angles) * ((1 - facing) ** 5)[:, None]
    matte = np.where(metal[:, None], 0.0, base * (1 - fresnel))
    light += matte * (0.16 + 0.14 * normal[:, 2:])
    mirrored = 2 * facing[:, None] * normal - views
    light += fresnel * sky(mirrored) * np.where(sharpness > 30, 1.0, 0.35)[:, None]
    for number, (position, intensity) in enumerate(LAMPS):
        offset = np.array(position) - points
        squared = (offset**2).sum(-1, keepdims=True)
        to_lamp = offset / np.sqrt(squared)
        cosine = np.clip((normal * to_lamp).sum(-1), 0, 1)
        if number < SHADOWS:
            blocked, _, _ = stage.hits(points + 1e-4 * normal, to_lamp)
            cosine = np.where(blocked < np.sqrt(squared[:, 0]), 0, cosine)
        half = to_lamp + views
        half /= np.linalg.norm(half, axis=-1, keepdims=True)
        lobe = np.clip((normal * half).sum(-1), 0, 1) ** sharpness * (sharpness + 8) / 8
        light += (matte + fresnel * lobe[:, None]) * cosine[:, None] * np.array(intensity) / squared
    return light


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light to sRGB in [0, 1]."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def viewpoint(elevation: float, azimuth: float) -> np.ndarray:
    """Camera-to-world [4 4] with OpenGL axes (x right, y up, z backward) of a camera that looks at the origin."""
    back = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    right = np.cross((0.0, 0.0, 1.0), back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(back, right), back, RADIUS * back
    return pose


def viewpoints(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cameras spread evenly over the upper half of the sphere."""
    heights = rng.uniform(math.sin(LOWEST), math.sin(math.radians(86)), count)
    return [viewpoint(math.asin(height), rng.uniform(0, 2 * math.pi)) for height in heights]


def rendered(stage: Stage, pose: np.ndarray, *, size: int, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """RGBA bytes with straight alpha [h w 4] and depth along the optical axis of the pixels' centres [h w].

    A pixel is grid x grid rays (an odd number, so that one goes through its centre); alpha is the part that hits, and
    the colour is the mean of what those see.
    """
    fine = size * grid
    focal = fine / 2 / math.tan(ANGLE / 2)
    v, u = np.mgrid[0:fine, 0:fine] + 0.5
    local = np.stack([(u - fine / 2) / focal, -(v - fine / 2) / focal, -np.ones_like(u)], -1).reshape(-1, 3)
    stretch = np.linalg.norm(local, axis=-1)
    directions = (local / stretch[:, None]) @ pose[:3, :3].T
    origins = np.broadcast_to(pose[:3, 3], directions.shape)
    distance, solid, normal = stage.hits(origins, directions)
    hit = solid >= 0
    light = np.zeros_like(directions)
    points = origins[hit] + distance[hit, None] * directions[hit]
    light[hit] = np.clip(shaded(stage, points, -directions[hit], solid[hit], normal[hit]), 0, 1)

    def pooled(values: np.ndarray) -> np.ndarray:
        return values.reshape(size, grid, size, grid, -1).sum((1, 3))

    covered = pooled(hit.astype(float))
    colour = encoded(pooled(light) / np.maximum(covered, 1))
    rgba = np.concatenate([colour, covered / grid**2], -1)
    middle = slice(grid // 2, None, grid)
    depth = np.where(hit, distance / stretch, 0).reshape(fine, fine)[middle, middle]
    return np.round(rgba * 255).astype(np.uint8), depth


def write_object(out: Path, *, size: int, grid: int, seed: int, first: int | None) -> None:
    """All pictures, transforms_*.json, the test views' depth, and checksums."""
    rng = np.random.default_rng(seed)
    stage, written = Stage(everything()), []
    for share, count in SHARES.items():
        frames = []
        (out / share).mkdir(parents=True, exist_ok=True)
        for number, pose in enumerate(viewpoints(count, rng)):
            frames.append({"file_path": f"./{share}/r_{number}", "transform_matrix": pose.tolist()})
            if first is not None and number >= first:
                continue
            rgba, depth = rendered(stage, pose, size=size, grid=grid)
            written.append(_saved(Image.fromarray(rgba), out / share / f"r_{number}.png"))
            if share == "test":
                (out / "depth").mkdir(exist_ok=True)
                units = np.round(depth * DEPTH_UNIT).astype(np.uint16)
                written.append(_saved(Image.fromarray(units), out / "depth" / f"r_{number}.png"))
        document = json.dumps({"camera_angle_x": ANGLE, "frames": frames}, indent=1)
        (out / f"transforms_{share}.json").write_text(document + "\n")
        written.append(out / f"transforms_{share}.json")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out).as_posix()}" for path in written]
    (out / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def _saved(picture: Image.Image, path: Path) -> Path:
    picture.save(path, optimize=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python data/object/generate.py", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=200, help="pixels a side (default: 200)")
    parser.add_argument("--grid", type=int, default=3, help="rays a pixel along each side, odd (default: 3)")
    parser.add_argument("--seed", type=int, default=2026, help="where the cameras stand (default: 2026)")
    parser.add_argument("--first", type=int, help="render only that many pictures of each share, as a trial")
    given = parser.parse_args()
    if given.grid < 1 or given.grid % 2 == 0:
        parser.error(f"--grid {given.grid}: use an odd number")
    write_object(given.out, size=given.size, grid=given.grid, seed=given.seed, first=given.first)


if __name__ == "__main__":
    main()
