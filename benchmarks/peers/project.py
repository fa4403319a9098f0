"""A scene as peers take it: ideal lenses, nerfstudio's transforms.json, scene points triangulated with our poses."""

import tempfile
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, distorted, pixel_grid
from crowdnerf_lab.captures.axes import opencv_to_opengl
from crowdnerf_lab.files import write_json
from crowdnerf_lab.scene import PosedScene

MOST_ZOOM = 1.5
ZOOM_STEP = 0.002
LARGEST_SIDE = 1024
"""Features are looked for in pictures no larger than this, in pixels."""
FEATURES = 4096
"""Most features of one picture."""


class PeerError(OSError):
    """A peer that is not installed or that failed; the message gives the steps that install it or its last words."""


@dataclass(frozen=True)
class ScenePoints:
    """Points that several photos see, in the scene's frame, with sRGB bytes."""

    positions: Float[Tensor, "n 3"]
    colours: UInt8[Tensor, "n 3"]


@dataclass(frozen=True)
class PeerRun:
    """What a peer made of a scene. renders: of the held-out views; seconds: of training alone; options: as given."""

    renders: tuple[Float[Tensor, "_ _ 3"], ...]
    seconds: float
    steps: int
    peak_mb: int | None
    options: str


def through_ideal_lenses(scene: PosedScene) -> PosedScene:
    """The same photos as lenses without distortion and with the principal point in the middle would show them.

    Sizes stay; the focal length grows by as little as keeps every pixel inside the photo. Bilinear; masks nearest.
    """
    cameras, images, masks = [], [], []
    grids: dict[tuple[float, ...], tuple[float, Tensor]] = {}
    for index, image in enumerate(scene.images):
        camera = scene.cameras[index]
        lens = (*camera.focal.tolist(), *camera.centre.tolist(), *camera.distortion.tolist(), *image.shape)
        if lens not in grids:
            grids[lens] = _sampling(camera, width=image.shape[1], height=image.shape[0])
        zoom, grid = grids[lens]
        middle = torch.tensor([image.shape[1] / 2, image.shape[0] / 2])
        cameras.append(
            replace(camera, focal=camera.focal * zoom, centre=middle, distortion=torch.zeros_like(camera.distortion))
        )
        images.append(_sampled(image, grid, mode="bilinear"))
        if scene.masks is not None:
            mask = scene.masks[index][..., None].to(torch.uint8) * 255
            masks.append(_sampled(mask, grid, mode="nearest")[..., 0] > 0)
    names = ("camera_to_world", "focal", "centre", "width", "height", "distortion")
    return replace(
        scene,
        cameras=Cameras(**{name: torch.stack([getattr(camera, name) for camera in cameras]) for name in names}),
        images=tuple(images),
        masks=tuple(masks) if scene.masks is not None else None,
    )


def _sampling(camera: Cameras, *, width: int, height: int) -> tuple[float, Tensor]:
    """The least zoom at which every pixel of the ideal picture falls inside the photo, and where they fall [h w 2]."""
    size = torch.tensor([width, height], dtype=torch.float32)
    zoom = 1.0
    while zoom < MOST_ZOOM:
        plane = (pixel_grid(width, height) - size / 2) / (camera.focal * zoom)
        seen = distorted(plane, camera.distortion.expand(height, width, 4)) * camera.focal + camera.centre
        # Half a pixel at the edge is repeated, as between the centres of the outermost pixels and the edge.
        if bool(((seen > -0.01) & (seen < size + 0.01)).all()):
            return zoom, 2 * seen / size - 1
        zoom += ZOOM_STEP
    raise PeerError(f"a lens needs a zoom beyond {MOST_ZOOM} to become ideal; crop the photos first")


def _sampled(image: UInt8[Tensor, "h w c"], grid: Tensor, *, mode: str) -> UInt8[Tensor, "h w c"]:
    planes = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None].to(torch.float32),
        grid[None],
        mode=mode,
        padding_mode="border",
        align_corners=False,
    )
    return planes[0].permute(1, 2, 0).round().to(torch.uint8).contiguous()


def write_project(scene: PosedScene, folder: Path, *, points: ScenePoints | None) -> Path:
    """Photos, transforms.json and points.ply as nerfstudio and OpenSplat read them: the training photos alone.

    The held-out photos never reach a peer.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for row in scene.train.tolist():
        file = f"images/{row:05d}.png"
        Image.fromarray(scene.images[row].numpy()).save(folder / file, compress_level=1)
        frames.append({"file_path": file, **_pinhole(scene.cameras, row)})
    document: dict[str, Any] = {"camera_model": "PINHOLE", "frames": frames}
    if points is not None:
        write_ply(points, folder / "points.ply")
        document["ply_file_path"] = "points.ply"
    return write_json(folder / "transforms.json", document)


def held_out_frames(scene: PosedScene) -> list[dict[str, Any]]:
    """The cameras of the held-out views as write_project writes those of the training photos."""
    return [_pinhole(scene.cameras, row) for row in scene.held_out.tolist()]


def _pinhole(cameras: Cameras, row: int) -> dict[str, Any]:
    pose = opencv_to_opengl(cameras.camera_to_world[row])
    (fl_x, fl_y), (cx, cy) = cameras.focal[row].tolist(), cameras.centre[row].tolist()
    lens = {"fl_x": fl_x, "fl_y": fl_y, "cx": cx, "cy": cy}
    size = {"w": int(cameras.width[row]), "h": int(cameras.height[row])}
    return {"transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]], **lens, **size}


def write_ply(points: ScenePoints, path: Path) -> None:
    """Points as a binary PLY with colours."""
    fields = [(axis, "<f4") for axis in "xyz"] + [(channel, "u1") for channel in ("red", "green", "blue")]
    rows = np.empty(len(points.positions), dtype=fields)
    for i, axis in enumerate("xyz"):
        rows[axis] = points.positions[:, i].numpy()
    for i, channel in enumerate(("red", "green", "blue")):
        rows[channel] = points.colours[:, i].numpy()
    kinds = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}", *kinds, "end_header", ""]
    path.write_bytes("\n".join(head).encode() + rows.tobytes())


def triangulated(scene: PosedScene, *, threads: int, seed: int = 0) -> ScenePoints:
    """Points seen in several training photos, by SIFT, exhaustive matching and triangulation with the scene's poses.

    The scene's lenses must be ideal. Raises PeerError without pycolmap or when nothing can be triangulated.
    """
    try:
        colmap: Any = import_module("pycolmap")
    except ImportError:
        raise PeerError('scene points need pycolmap; pip install "crowdnerf-lab[colmap]"') from None
    colmap.logging.minloglevel = colmap.logging.ERROR.value
    colmap.set_random_seed(seed)
    with tempfile.TemporaryDirectory(prefix="points.") as root:
        pictures, database = Path(root) / "pictures", Path(root) / "database.db"
        pictures.mkdir()
        reconstruction = _posed_reconstruction(colmap, scene, pictures, database, threads=threads)
        options = colmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed = threads, seed
        found = colmap.triangulate_points(reconstruction, database, pictures, Path(root), True, options, False)
    points = list(found.points3D.values())
    if not points:
        raise PeerError(f"no scene points could be triangulated for '{scene.name}'; the peer needs photos that overlap")
    return ScenePoints(
        positions=torch.tensor(np.array([point.xyz for point in points], dtype=np.float32)),
        colours=torch.tensor(np.array([point.color for point in points], dtype=np.uint8)),
    )


def _posed_reconstruction(colmap: Any, scene: PosedScene, pictures: Path, database: Path, *, threads: int) -> Any:
    """Features and matches in the database, and pycolmap's reconstruction that holds the poses alone."""
    rows = scene.train.tolist()
    extraction = colmap.FeatureExtractionOptions()
    extraction.use_gpu, extraction.num_threads = False, threads
    extraction.max_image_size, extraction.sift.max_num_features = LARGEST_SIDE, FEATURES
    for row in rows:
        name = f"{row:05d}.png"
        Image.fromarray(scene.images[row].numpy()).save(pictures / name, compress_level=1)
        reader = colmap.ImageReaderOptions()
        reader.camera_model = "PINHOLE"
        lens = (*scene.cameras.focal[row].tolist(), *scene.cameras.centre[row].tolist())
        reader.camera_params = ",".join(map(str, lens))
        colmap.extract_features(
            database,
            pictures,
            image_names=[name],
            camera_mode=colmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=extraction,
            device=colmap.Device.cpu,
        )
    matching = colmap.FeatureMatchingOptions()
    matching.use_gpu, matching.num_threads = False, threads
    colmap.match_exhaustive(database, matching_options=matching, device=colmap.Device.cpu)
    reconstruction = colmap.Reconstruction()
    with colmap.Database.open(database) as opened:
        for camera in opened.read_all_cameras():
            reconstruction.add_camera_with_trivial_rig(camera)
        for listed in opened.read_all_images():
            pose = scene.cameras.camera_to_world[int(Path(listed.name).stem)].double().numpy()
            rotation = np.linalg.svd(pose[:, :3])
            nearest = rotation.U @ rotation.Vh
            image = colmap.Image()
            image.name, image.camera_id, image.image_id = listed.name, listed.camera_id, listed.image_id
            reconstruction.add_image_with_trivial_frame(
                image, colmap.Rigid3d(colmap.Rotation3d(nearest.T), -nearest.T @ pose[:, 3])
            )
    return reconstruction
