"""The concert as a Mitsuba scene, and frames of it: direct light of every lamp, the screen, and beams in the haze.

Nothing is sampled at random. A pixel is the mean over a grid of rays; at each hit every lamp is one shadow ray, and the
LED wall is a grid of small lamps that shine by Lambert's law. Indirect light is a dim constant from above.
"""

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi
import numpy as np
import stage
from geometry import Mesh
from jaxtyping import Float
from lights import HAZE_EXTINCTION, HAZE_SCATTERING, Spotlight, spotlights
from people import Crowd, band
from viewpoints import Viewpoint

mi.set_variant("llvm_ad_rgb")  # Mitsuba has no types to name before a variant is chosen

NIGHT = (0.002, 0.0025, 0.005)
"""Radiance of the sky."""
AMBIENT = (0.010, 0.010, 0.015)
"""Stand-in for indirect light, on surfaces that face up; half of it on upright ones."""
SCREEN_LAMPS = (4, 2)
"""Columns and rows of lamps that stand for the LED wall."""
FULL_BEAM = 0.6
"""Part of a spotlight's half angle that is fully lit."""
FARTHEST = 60.0
"""Metres of haze along a ray that hits nothing."""
HAZE_STEPS = 64

MATTE = {
    "type": "twosided",
    "b": {"type": "diffuse", "reflectance": {"type": "mesh_attribute", "name": "vertex_color"}},
}
METAL = {
    "type": "twosided",
    "b": {
        "type": "principled",
        "base_color": {"type": "mesh_attribute", "name": "vertex_color"},
        "roughness": 0.35,
        "metallic": 0.6,
        "specular": 0.5,
    },
}


@dataclass(frozen=True)
class Frame:
    """radiance is linear; depth is metres along the optical axis, 0 where nothing was hit."""

    radiance: Float[np.ndarray, "h w 3"]
    depth: Float[np.ndarray, "h w"]


@dataclass(frozen=True)
class ConcertStage:
    """Everything that can be seen at one moment of the show (s), as Mitsuba's shapes by name."""

    time: float
    shapes: dict

    def scene(self, bystanders: Mesh | None = None) -> mi.Scene:
        """Ready to render; bystanders are people in front of one phone only."""
        extra = {} if bystanders is None else {"bystanders": _shape("bystanders", bystanders, MATTE)}
        return mi.load_dict({"type": "scene", **self.shapes, **extra, **_textured_surfaces(self.time)})


def concert_stage(crowd: Crowd, *, time: float) -> ConcertStage:
    """Stage, band and crowd at a moment of the show (s)."""
    matte, metal = stage.stage_solids(spotlights(time))
    shapes = {
        "matte": _shape("matte", matte.mesh(), MATTE),
        "metal": _shape("metal", metal.mesh(), METAL),
        "crowd": _shape("crowd", crowd.at(time), MATTE),
        "band": _shape("band", band(time, deck_height=stage.DECK_HEIGHT), MATTE),
        "phones": _shape("phones", crowd.phones, MATTE),
    }
    return ConcertStage(time, shapes)


def render_frame(scene: mi.Scene, viewpoint: Viewpoint, *, time: float, grid: int) -> Frame:
    """One picture, with grid x grid rays a pixel."""
    radiance = _direct_light(scene, viewpoint, time, grid)
    directions, stretch = _pixel_rays(viewpoint, 1)
    hit = scene.ray_intersect_preliminary(_rays(viewpoint, directions), coherent=True)
    distance = np.array(hit.t).reshape(viewpoint.height, viewpoint.width)
    is_hit = np.isfinite(distance)
    radiance = radiance + _haze(viewpoint, directions, np.where(is_hit, distance, FARTHEST), spotlights(time))
    return Frame(radiance, np.where(is_hit, distance / stretch, 0))


def _direct_light(scene: mi.Scene, viewpoint: Viewpoint, time: float, grid: int) -> Float[np.ndarray, "h w 3"]:
    directions, _ = _pixel_rays(viewpoint, grid)
    ray = _rays(viewpoint, directions)
    surface = scene.ray_intersect(ray, mi.RayFlags.All, coherent=True)
    seen, material = surface.is_valid(), surface.bsdf()
    light = dr.select(seen, surface.emitter(scene).eval(surface, seen), mi.Color3f(*NIGHT))
    upwards = 0.5 + 0.5 * surface.sh_frame.n.z
    albedo = material.eval_diffuse_reflectance(surface, seen)
    light += dr.select(seen, albedo * mi.Color3f(*AMBIENT) * upwards, 0)
    light = dr.select(dr.all(dr.isfinite(light)), light, 0)
    dr.eval(light, surface)
    for spotlight in spotlights(time):
        intensity = [spotlight.intensity * channel for channel in spotlight.colour]
        beam = _beam_profile(spotlight)
        light += _light_from(scene, surface, ray, position=spotlight.position, intensity=intensity, profile=beam)
        dr.eval(light)
    for position, intensity in _screen_lamps(time):
        light += _light_from(
            scene,
            surface,
            ray,
            position=position,
            intensity=intensity,
            profile=lambda to_lamp: dr.maximum(to_lamp.y, 0),
        )
        dr.eval(light)
    height, width = viewpoint.height, viewpoint.width
    return np.array(light).T.reshape(height, grid, width, grid, 3).mean((1, 3))


def _light_from(scene: mi.Scene, surface, ray, *, position, intensity, profile) -> mi.Color3f:
    """Light that a lamp at a point sends to the viewer by way of the surface, with a shadow ray.

    profile: the part of the lamp's intensity that leaves it towards the surface, given the direction to the lamp.
    """
    lamp = mi.Point3f(*map(_opaque, position))
    offset = lamp - surface.p
    squared_distance = dr.squared_norm(offset)
    to_lamp = offset * dr.rsqrt(squared_distance)
    emitted, normal = profile(to_lamp), surface.sh_frame.n
    lit = surface.is_valid() & (emitted > 0) & (dr.dot(to_lamp, normal) * dr.dot(-ray.d, normal) > 0)
    lit &= ~scene.ray_test(surface.spawn_ray_to(lamp), lit)
    reflected = surface.bsdf().eval(mi.BSDFContext(), surface, surface.to_local(to_lamp), lit)
    light = reflected * mi.Color3f(*map(_opaque, intensity)) * emitted / dr.maximum(squared_distance, 0.05)
    return dr.select(lit & dr.all(dr.isfinite(light)), light, 0)


def _beam_profile(spotlight: Spotlight):
    """Full within the inner cone, then a smooth step to darkness at the half angle."""
    axis = mi.Vector3f(*map(_opaque, spotlight.axis))
    dark, full = _opaque(np.cos(spotlight.half_angle)), _opaque(np.cos(spotlight.half_angle * FULL_BEAM))

    def profile(to_lamp: mi.Vector3f) -> mi.Float:
        return _smooth_step(dr.clip((dr.dot(-to_lamp, axis) - dark) / (full - dark), 0, 1))

    return profile


def _screen_lamps(time: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Position and intensity of the lamps that stand for the LED wall: the mean radiance of a patch times its area."""
    radiance, (columns, rows) = stage.screen_radiance(time), SCREEN_LAMPS
    patch_height, patch_width = radiance.shape[0] // rows, radiance.shape[1] // columns
    area = stage.SCREEN_WIDTH * stage.SCREEN_HEIGHT / columns / rows
    lamps = []
    for column in range(columns):
        for row in range(rows):
            top, left = row * patch_height, column * patch_width
            patch = radiance[top : top + patch_height, left : left + patch_width]
            east = ((column + 0.5) / columns - 0.5) * stage.SCREEN_WIDTH
            up = (0.5 - (row + 0.5) / rows) * stage.SCREEN_HEIGHT
            lamps.append((stage.SCREEN_CENTRE + np.array([east, -0.05, up]), patch.mean((0, 1)) * area))
    return lamps


def _haze(viewpoint: Viewpoint, directions: np.ndarray, distance: np.ndarray, lamps: tuple[Spotlight, ...]):
    """Light [h w 3] that the haze scatters towards the viewer, up to the surface: single scattering, no shadows."""
    rays = [mi.Float(np.ascontiguousarray(directions[..., axis].ravel().astype(np.float32))) for axis in range(3)]
    reach = mi.Float(distance.ravel().astype(np.float32))
    scattered = np.zeros((distance.size, 3), np.float32)
    for lamp in lamps:
        offset = lamp.position - viewpoint.camera_to_world[:, 3]
        beam = _beam_integral(
            mi.Vector3f(*rays),
            reach,
            mi.Vector3f(*map(_opaque, offset)),
            mi.Vector3f(*map(_opaque, lamp.axis)),
            _opaque(np.cos(lamp.half_angle)),
            dr.opaque(mi.UInt32, HAZE_STEPS),
        )
        strength = np.array(lamp.colour) * lamp.intensity * HAZE_SCATTERING * lamp.haze
        scattered += np.array(beam)[:, None] * strength.astype(np.float32)
    return scattered.reshape(*distance.shape, 3)


@dr.syntax
def _beam_integral(direction, reach, offset, axis, edge, steps):
    """Integral over a ray of beam profile / distance^2 to the lamp, by equal steps of the angle seen from the lamp.

    Equi-angular sampling (Kulla and Fajardo 2012): x = D tan(angle) from the point nearest to the lamp, dx / r^2 =
    d(angle) / D. offset points from the eye to the lamp; edge is the cosine of the beam's half angle.
    """
    nearest = dr.dot(direction, offset)
    closest = dr.sqrt(dr.maximum(dr.squared_norm(offset) - nearest * nearest, 1e-4))
    first, last = dr.atan2(-nearest, closest), dr.atan2(reach - nearest, closest)
    step, total, count = mi.UInt32(0), mi.Float(0), mi.Float(steps)
    while step < steps:
        angle = first + (last - first) * (mi.Float(step) + 0.5) / count
        along = closest * dr.tan(angle)
        from_lamp = direction * (nearest + along) - offset
        distance = dr.sqrt(closest * closest + along * along)
        inside = dr.clip((dr.dot(from_lamp, axis) / distance - edge) / (1 - edge), 0, 1)
        total += _smooth_step(inside) * dr.exp(-HAZE_EXTINCTION * distance)
        step += 1
    return total * (last - first) / count / closest


def _smooth_step(x):
    return x * x * (3 - 2 * x)


def _opaque(value: float) -> mi.Float:
    """A number that Dr.Jit keeps out of the compiled kernel: one kernel then serves every lamp and every frame."""
    return dr.opaque(mi.Float, float(value))


def _pixel_rays(viewpoint: Viewpoint, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit directions [h w 3] in the world and their length [h w] on the plane z = 1, grid x grid of them a pixel."""
    height, width, focal = viewpoint.height * grid, viewpoint.width * grid, viewpoint.focal_px * grid
    v, u = np.mgrid[0:height, 0:width] + 0.5
    directions = np.stack([(u - width / 2) / focal, (v - height / 2) / focal, np.ones_like(u)], -1)
    stretch = np.linalg.norm(directions, axis=-1, keepdims=True)
    return (directions / stretch) @ viewpoint.camera_to_world[:, :3].T, stretch[..., 0]


def _rays(viewpoint: Viewpoint, directions: np.ndarray) -> mi.Ray3f:
    flat = directions.reshape(-1, 3).astype(np.float32)
    eye = mi.Point3f(*map(_opaque, viewpoint.camera_to_world[:, 3]))
    return mi.Ray3f(eye, mi.Vector3f(*(mi.Float(np.ascontiguousarray(flat[:, axis])) for axis in range(3))))


def _shape(name: str, mesh: Mesh, material: dict) -> mi.Mesh:
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(material)
    shape = mi.Mesh(name, len(mesh.vertices), len(mesh.triangles), props=properties)
    shape.add_attribute("vertex_color", 3, mesh.colours.astype(np.float32).ravel())
    parameters = mi.traverse(shape)
    parameters["vertex_positions"] = mesh.vertices.astype(np.float32).ravel()
    parameters["faces"] = mesh.triangles.astype(np.uint32).ravel()
    parameters.update()
    return shape


def _textured_surfaces(time: float) -> dict:
    """Deck, ground, backdrop and the LED wall."""
    boards = stage.boards(512, (0.20, 0.17, 0.15), contrast=0.16, seed=3, count=22)
    ground = stage.mottled(512, (0.10, 0.10, 0.11), contrast=0.25, seed=4)
    backdrop = stage.mottled(256, (0.05, 0.05, 0.06), contrast=0.3, seed=6)
    deck_centre, deck_size = (0, stage.DECK_DEPTH / 2, stage.DECK_HEIGHT), (stage.DECK_WIDTH, stage.DECK_DEPTH)
    wall_size = (stage.SCREEN_WIDTH, stage.SCREEN_HEIGHT)
    varnish = {"type": "principled", "base_color": _bitmap(boards), "roughness": 0.30, "specular": 0.6}
    return {
        "deck": _rectangle(deck_centre, deck_size) | {"bsdf": varnish},
        "ground": _rectangle((0, 0, 0), (90, 90)) | {"bsdf": {"type": "diffuse", "reflectance": _bitmap(ground)}},
        "backdrop": _rectangle((0, 6.9, 4.2), (13.5, 7.2), upright=True)
        | {"bsdf": {"type": "diffuse", "reflectance": _bitmap(backdrop)}},
        "screen": _rectangle(stage.SCREEN_CENTRE, wall_size, upright=True)
        | {
            "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.02}},
            "emitter": {"type": "area", "radiance": _bitmap(stage.screen_radiance(time)[::-1])},
        },
    }


def _rectangle(centre, size: tuple[float, float], *, upright: bool = False) -> dict:
    """A rectangle that faces up, or an upright one that faces the crowd."""
    placed = mi.ScalarTransform4f().translate(list(map(float, centre)))
    if upright:
        placed = placed @ mi.ScalarTransform4f().rotate([1, 0, 0], 90)
    return {"type": "rectangle", "to_world": placed @ mi.ScalarTransform4f().scale([size[0] / 2, size[1] / 2, 1])}


def _bitmap(values: np.ndarray) -> dict:
    """A texture of linear values; its first row lies at v = 0."""
    bitmap = mi.Bitmap(np.ascontiguousarray(values))
    return {"type": "bitmap", "bitmap": bitmap, "raw": True, "filter_type": "bilinear"}
