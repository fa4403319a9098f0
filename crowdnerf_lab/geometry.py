"""Geometry out of a radiance field, for people who need surfaces: meshes, point clouds, depth images, and their error.

A mesh is the level set of the density (marching cubes, Lorensen and Cline 1987; Lewiner et al. 2003) in a box; a point
cloud is what the rendered depths of cameras hit. Both carry the field's neutral colours and are in ENU metres. Files:
PLY keeps east, north, up; glTF (GLB) is y-up and takes linear colours, so both are turned at the door.

Two depths: a ray's is the distance from the camera's centre, a depth image's is along the optical axis.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.fields.appearance import srgb_to_linear
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.files import write_atomically, write_bytes
from crowdnerf_lab.rays import image_rays
from crowdnerf_lab.rendering import RAYS_AT_ONCE, render_view
from crowdnerf_lab.scene import Bounds

log = logging.getLogger(__name__)

INSTALL = 'pip install "crowdnerf-lab[geometry]"'
POINTS_AT_ONCE = 1 << 17
"""Points a field is asked at once: bounds memory."""
OPAQUE = 0.5
"""Opacity from which a ray has a depth."""
FARTHEST_MM = 65535
"""What 16 bits of millimetres can say; farther is written as 0, nothing."""


class GeometryError(RuntimeError):
    """Geometry that cannot be made or written; the message says what to do."""


@dataclass(frozen=True)
class Mesh:
    """Triangles in ENU metres, seen from outside counter-clockwise; colours are neutral sRGB bytes of the vertices."""

    vertices: Float[Tensor, "n 3"]
    faces: Int[Tensor, "m 3"]
    colours: UInt8[Tensor, "n 3"]


@dataclass(frozen=True)
class PointCloud:
    """Points in ENU metres with neutral sRGB bytes."""

    points: Float[Tensor, "n 3"]
    colours: UInt8[Tensor, "n 3"]


@dataclass(frozen=True)
class DepthError:
    """Of depth images against the truth, over pixels where both know one. median_m: median absolute error in metres;
    median_relative: of the true depth; within_5_percent: fraction of pixels; known: fraction of the true depths that
    the render has."""

    median_m: float
    median_relative: float
    within_5_percent: float
    known: float


def mesh_of(
    field: RadianceField,
    *,
    region: Bounds,
    cells: int = 192,
    threshold: float | None = None,
    smallest_m: float = 0.0,
) -> Mesh:
    """The surface where the field's density crosses `threshold` (per metre) inside a box.

    cells: along the box's longest side. threshold: by default the density that makes half a cell's light end in it.
    smallest_m: pieces whose bounding box has a shorter diagonal, in metres, are taken for floaters and dropped.

    Raises GeometryError when the field does not cross the threshold in the box.
    """
    measure = _needed("skimage.measure")
    step = 2 * float(region.half_size.max()) / cells
    counts = [max(round(2 * float(half) / step), 1) + 1 for half in region.half_size]
    threshold = math.log(2) / step if threshold is None else threshold
    low = region.centre - region.half_size
    sides = 2 * region.half_size / (torch.tensor(counts) - 1)
    # The logarithm is what trilinear fields interpolate: levels of it are smooth where those of the density are steps.
    volume = np.log(np.maximum(_densities(field, low, sides, counts), 1e-6))
    # Nothing beyond the box: surfaces are closed at its faces.
    volume = np.pad(volume, 1, constant_values=volume.min(initial=math.log(threshold)) - 1)
    try:
        found = measure.marching_cubes(volume, math.log(threshold), allow_degenerate=False, gradient_direction="ascent")
    except (ValueError, RuntimeError):
        raise GeometryError(
            f"the density nowhere crosses {threshold:.3g} per metre in the box; choose another threshold or region"
        ) from None
    vertices = torch.from_numpy(np.ascontiguousarray(found[0])).float()
    vertices = low + (vertices - 1) * sides
    faces = torch.from_numpy(np.ascontiguousarray(found[1]).astype(np.int64))
    vertices, faces = _without_floaters(vertices, faces, smallest_m)
    return Mesh(vertices=vertices, faces=faces, colours=_colours(field, vertices, _normals(vertices, faces)))


def points_of(field: RadianceField, cameras: Cameras, *, every: int = 4) -> PointCloud:
    """What the rendered depths of cameras hit; every `every`-th pixel of each image."""
    points, colours = [], []
    for index in range(len(cameras)):
        small = cameras[index : index + 1].downscaled(every)
        rays, rendered = image_rays(small, 0), render_view(field, small, 0)
        hit = rendered.opacity > OPAQUE
        points.append((rays.origins + rays.directions * rendered.depth[..., None])[hit])
        colours.append(_bytes(rendered.colour[hit]))
    return PointCloud(points=torch.cat(points), colours=torch.cat(colours))


def write_geometry(geometry: Mesh | PointCloud, path: Path) -> Path:
    """Write a mesh or a point cloud as .ply (ENU, sRGB) or .glb (glTF 2.0: y up, linear colours), atomically."""
    trimesh = _needed("trimesh")
    path = Path(path)
    if path.suffix not in (".ply", ".glb"):
        raise ValueError(f"{path} ends in neither .ply nor .glb; choose one of these formats")
    where = geometry.vertices if isinstance(geometry, Mesh) else geometry.points
    colours = geometry.colours
    if path.suffix == ".glb":
        where = east_north_up_to_gltf(where)
        colours = _bytes(srgb_to_linear(colours.float() / 255))
    if isinstance(geometry, Mesh):
        made = trimesh.Trimesh(where.numpy(), geometry.faces.numpy(), vertex_colors=colours.numpy(), process=False)
    else:
        made = trimesh.PointCloud(where.numpy(), colors=colours.numpy())
    kind = path.suffix.removeprefix(".")
    content = (made if kind == "ply" else trimesh.Scene(made)).export(file_type=kind)
    return write_bytes(path, content)


def east_north_up_to_gltf(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """(east, north, up) to glTF's axes: x east, y up, z south."""
    east, north, up = points.unbind(-1)
    return torch.stack([east, up, -north], dim=-1)


def axial_depth(depth: Float[Tensor, "h w"], camera: Cameras) -> Float[Tensor, "h w"]:
    """Depth along rays to depth along the optical axis; camera: a batch of one, of the image's size."""
    directions = image_rays(camera, 0).directions
    return depth * (directions @ camera.forward[0])


def depth_image(field: RadianceField, camera: Cameras) -> Float[Tensor, "h w"]:
    """Depth along the optical axis of one camera's view, metres; 0 where nothing is hit."""
    rendered = render_view(field, camera, 0)
    return torch.where(rendered.opacity > OPAQUE, axial_depth(rendered.depth, camera), 0.0)


def write_depth(depth: Float[Tensor, "h w"], path: Path) -> Path:
    """Write a depth image in metres: .png as 16-bit millimetres (0: nothing, or beyond 65.5 m), .npy as float32."""
    path = Path(path)
    if path.suffix == ".npy":
        return write_atomically(path, lambda temporary: _save_array(temporary, depth))
    if path.suffix != ".png":
        raise ValueError(f"{path} ends in neither .png nor .npy; choose one of these formats")
    millimetres = (depth.double() * 1000).round()
    millimetres = torch.where((millimetres > 0) & (millimetres <= FARTHEST_MM), millimetres, 0)
    picture = Image.fromarray(millimetres.numpy().astype(np.uint16))
    return write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def read_depth(path: Path) -> Float[Tensor, "h w"]:
    """A depth image as metres, 0 where it is unknown: 16-bit PNG in millimetres, or .npy."""
    path = Path(path)
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
    with Image.open(path) as picture:
        if not picture.mode.startswith("I"):
            raise GeometryError(f"{path} has mode {picture.mode}, not 16-bit grey; write depths with write_depth")
        return torch.from_numpy(np.asarray(picture).astype(np.float32)) / 1000


def depth_error(depths: list[Float[Tensor, "_ _"]], truths: list[Float[Tensor, "_ _"]]) -> DepthError:
    """Compare depth images (metres along the optical axis, 0: unknown) with the true ones, pooled over all pixels."""
    found = torch.cat([depth.flatten() for depth in depths]).double()
    truth = torch.cat([depth.flatten() for depth in truths]).double()
    if found.shape != truth.shape:
        raise ValueError(f"depths have {len(found)} pixels and the truth {len(truth)}; compare images of one size")
    true = truth > 0
    both = true & (found > 0)
    if not bool(both.any()):
        raise ValueError("no pixel has both a depth and a true depth; nothing can be compared")
    apart = (found - truth).abs()[both]
    relative = apart / truth[both]
    return DepthError(
        median_m=float(apart.median()),
        median_relative=float(relative.median()),
        within_5_percent=float((relative <= 0.05).double().mean()),
        known=float(both.sum() / true.sum()),
    )


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise GeometryError(f"{module.partition('.')[0]} is not installed; {INSTALL}") from error


@torch.no_grad()
def _densities(
    field: RadianceField, low: Float[Tensor, "3"], sides: Float[Tensor, "3"], counts: list[int]
) -> np.ndarray:
    """Density per metre at the nodes of a net, slab after slab."""
    volume = np.empty(counts, np.float32)
    thick = max(POINTS_AT_ONCE // (counts[1] * counts[2]), 1)
    plane = torch.cartesian_prod(torch.arange(counts[1]), torch.arange(counts[2]))
    for first in range(0, counts[0], thick):
        slab = torch.arange(first, min(first + thick, counts[0]))
        index = torch.cat([slab.repeat_interleave(len(plane))[:, None], plane.repeat(len(slab), 1)], dim=-1)
        volume[first : first + len(slab)] = field.density(low + index * sides).reshape(len(slab), *counts[1:]).numpy()
    return volume


def _without_floaters(
    vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"], smallest_m: float
) -> tuple[Float[Tensor, "n2 3"], Int[Tensor, "m2 3"]]:
    """The mesh without connected pieces whose bounding box is smaller than `smallest_m` from corner to corner."""
    if smallest_m <= 0:
        return vertices, faces
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    start, end = faces[:, [0, 1, 2]].flatten().numpy(), faces[:, [1, 2, 0]].flatten().numpy()
    links = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(len(vertices), len(vertices)))
    pieces, piece = connected_components(links, directed=False)
    low, high = np.full((pieces, 3), np.inf), np.full((pieces, 3), -np.inf)
    np.minimum.at(low, piece, vertices.numpy())
    np.maximum.at(high, piece, vertices.numpy())
    kept = torch.from_numpy(np.linalg.norm(high - low, axis=1) >= smallest_m)[torch.from_numpy(piece).long()]
    number = kept.long().cumsum(0) - 1
    return vertices[kept], number[faces[kept[faces[:, 0]]]]


def _normals(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"]) -> Float[Tensor, "n 3"]:
    """Outward unit normals of vertices: the mean of their triangles', weighted by area."""
    a, b, c = vertices[faces].unbind(1)
    across = torch.cross(b - a, c - a, dim=-1)
    summed = torch.zeros_like(vertices)
    for corner in range(3):
        summed.index_add_(0, faces[:, corner], across)
    return torch.nn.functional.normalize(summed, dim=-1)


@torch.no_grad()
def _colours(field: RadianceField, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]) -> UInt8[Tensor, "n 3"]:
    """Neutral colours of surface points as seen from straight above them."""

    def pieces() -> Iterator[Tensor]:
        for start in range(0, len(points), RAYS_AT_ONCE):
            stop = start + RAYS_AT_ONCE
            yield _bytes(field.forward(points[start:stop], -normals[start:stop])[1])

    return torch.cat([*pieces(), torch.zeros(0, 3, dtype=torch.uint8)])


def _bytes(colours: Float[Tensor, "n 3"]) -> UInt8[Tensor, "n 3"]:
    return (colours.clamp(0, 1) * 255).round().to(torch.uint8)


def _save_array(path: Path, depth: Float[Tensor, "h w"]) -> None:
    with path.open("wb") as file:
        np.save(file, depth.numpy().astype(np.float32), allow_pickle=False)
