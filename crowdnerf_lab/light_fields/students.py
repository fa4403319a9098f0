"""Untrained students by the names that presets, notebooks and benchmarks call them: a family and a size."""

from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.light_fields.light_field import LightField, LightFieldError
from crowdnerf_lab.light_fields.light_slab import LightSlab, slabs_of
from crowdnerf_lab.light_fields.plane_features import layout_of, plane_features
from crowdnerf_lab.light_fields.planes import planes_through
from crowdnerf_lab.light_fields.ray_mlp import RayMLP
from crowdnerf_lab.light_fields.surfaces import seen_surfaces
from crowdnerf_lab.scene import PosedScene

FAMILIES = ("ray_mlp", "plane_features", "light_slab")


def untrained_student(
    name: str, *, teacher: RadianceField, scene: PosedScene, view_size: tuple[int, int] = (320, 240), seed: int = 0
) -> LightField:
    """A student of 'FAMILY SIZE', 'ray_mlp S' for instance, laid through what the teacher shows the scene's cameras.

    view_size: (width, height) of the views it will be distilled for. Raises LightFieldError for a name that is not
    known, and for cameras that have no common viewing direction.
    """
    family, _, size = name.partition(" ")
    cameras = scene.cameras[scene.train]
    match family:
        case "ray_mlp":
            planes = planes_through(teacher, cameras, scene.bounds, seed=seed)
            return RayMLP(planes, size, view_size=view_size, seed=seed)
        case "plane_features":
            layout = layout_of(size)
            return plane_features(teacher, cameras, scene.bounds, layout=layout, view_size=view_size, seed=seed)
        case "light_slab":
            slabs = slabs_of(seen_surfaces(teacher, cameras, seed=seed))
            return LightSlab(slabs, size, view_size=view_size, seed=seed)
        case _:
            raise LightFieldError(f"student {name!r} is not known; name a family ({', '.join(FAMILIES)}) and a size")
