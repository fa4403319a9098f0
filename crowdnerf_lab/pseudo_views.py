"""Pseudo views: what a teacher shows at the places where UEs will look, rendered once and kept as bytes.

Poses are the captured ones, poses between neighbours, and a margin around both (R2L, Wang et al. 2022). Of each view
only a small window is rendered, and of the window one pixel, taken at random, of every block of step x step. The same
number of rendered pixels then covers many times more rays, and rays are what a student lacks: from the concert's field,
a quarter of the pixels of four times as many cells gave 2.3 dB more on views between the captured ones.
"""

import hashlib
import json
import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from tqdm.auto import tqdm

from crowdnerf_lab.cameras import Cameras, pixel_grid
from crowdnerf_lab.fields.field import RadianceField
from crowdnerf_lab.files import write_atomically, write_json
from crowdnerf_lab.rays import rays_through
from crowdnerf_lab.rendering import RAYS_AT_ONCE

log = logging.getLogger(__name__)

NEIGHBOURS = 8
"""Nearest cameras that a pose may lie towards."""


class PseudoViewError(ValueError):
    """Pseudo views that cannot be made or used; the message says why and what to do."""


@dataclass(frozen=True)
class PseudoViews:
    """Windows of views and the pixels of them that were rendered.

    cameras: of the windows (ideal lenses; the principal point may lie outside). images: sRGB bytes [n r c 3], one pixel
    of every block of step x step, in memory or mapped from a file. offsets: where in its block each pixel lies, (u, v)
    [n r c 2] in [0, step).
    """

    cameras: Cameras
    step: int
    offsets: NDArray[np.uint8]
    images: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)


def viewing_cameras(cameras: Cameras, *, width: int, height: int) -> Cameras:
    """Ideal cameras of width x height pixels at the poses of some cameras, with their angular size of a pixel.

    Cameras in portrait orientation keep their scale along the longer side.
    """
    scale = max(width, height) / torch.maximum(cameras.width, cameras.height)
    focal = cameras.focal.mean(-1) * scale
    n = len(cameras)
    return Cameras(
        camera_to_world=cameras.camera_to_world.to(torch.float32),
        focal=focal[:, None].expand(n, 2).to(torch.float32).clone(),
        centre=torch.tensor([width / 2, height / 2]).expand(n, 2).clone(),
        width=torch.full((n,), width),
        height=torch.full((n,), height),
        distortion=torch.zeros(n, 4),
    )


def among(cameras: Cameras, others: Cameras) -> Bool[Tensor, "n"]:
    """Which of the others stand among some cameras: no further from the nearest than these are from a neighbour.

    The largest distance between a camera and its nearest neighbour counts; a single camera has nobody but itself.
    """
    apart = torch.cdist(cameras.positions, cameras.positions)
    apart.fill_diagonal_(torch.inf)
    reach = apart.min(1).values.max() if len(cameras) > 1 else apart.new_zeros(())
    return torch.cdist(others.positions, cameras.positions).min(1).values <= reach


def poses_between(cameras: Cameras, count: int, *, margin: float, angle: float, seed: int) -> Cameras:
    """`count` cameras: the given ones in turn, each moved a random part of the way to one of its nearest NEIGHBOURS.

    The first round starts at the given poses themselves. margin: standard deviation of a further shift along each axis,
    as a fraction of the median distance to the neighbours; angle: that of a further turn about each axis, radians.
    """
    generator = np.random.default_rng(seed)
    positions = cameras.positions.numpy().astype(np.float64)
    rotations = cameras.camera_to_world[..., :3].numpy().astype(np.float64)
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    neighbours = np.argsort(apart, axis=1, kind="stable")[:, 1 : NEIGHBOURS + 1]
    spacing = float(np.median(np.take_along_axis(apart, neighbours, axis=1)))

    start = np.arange(count) % len(cameras)
    end = neighbours[start, generator.integers(0, neighbours.shape[1], count)]
    part = np.where(np.arange(count) < len(cameras), 0.0, generator.random(count))
    turn = Rotation.from_matrix(rotations[start].transpose(0, 2, 1) @ rotations[end]).as_rotvec() * part[:, None]
    rotation = rotations[start] @ Rotation.from_rotvec(turn + generator.normal(0, angle, (count, 3))).as_matrix()
    position = positions[start] + part[:, None] * (positions[end] - positions[start])
    position = position + generator.normal(0, margin * spacing, (count, 3))
    pose = np.concatenate([rotation, position[..., None]], axis=-1)
    first, second = cameras[torch.from_numpy(start)], cameras[torch.from_numpy(end)]
    weight = torch.from_numpy(part)[:, None].to(first.focal)
    return replace(
        first,
        camera_to_world=torch.from_numpy(pose).to(torch.float32),
        focal=torch.lerp(first.focal, second.focal, weight),
    )


def windows_of(cameras: Cameras, side: int, *, seed: int) -> Cameras:
    """One window of side x side pixels of every camera, placed at random inside its image."""
    generator = np.random.default_rng(seed)
    corner = [generator.integers(0, np.maximum(size.numpy() - side, 0) + 1) for size in (cameras.width, cameras.height)]
    shift = torch.from_numpy(np.stack(corner, axis=-1)).to(cameras.centre)
    size = torch.full_like(cameras.width, side)
    return Cameras(cameras.camera_to_world, cameras.focal, cameras.centre - shift, size, size, cameras.distortion)


def random_offsets(cameras: Cameras, step: int, *, seed: int) -> NDArray[np.uint8]:
    """A random pixel (u, v) in every block of step x step of windows of one size [n r c 2]; zeros for step 1."""
    blocks = len(cameras), int(cameras.height[0]) // step, int(cameras.width[0]) // step
    return np.random.default_rng(seed).integers(0, step, (*blocks, 2), dtype=np.uint8)


def rendered_pixels(
    teacher: RadianceField, cameras: Cameras, *, step: int, offsets: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """What the teacher shows at one pixel of every block, as sRGB bytes [n r c 3]. PseudoViewError when not finite."""
    n, rows, columns, _ = offsets.shape
    pixels = step * (pixel_grid(columns, rows) - 0.5) + torch.from_numpy(offsets) + 0.5
    index = torch.arange(n)[:, None, None].expand(n, rows, columns)
    with torch.no_grad():
        colour = teacher.render(rays_through(cameras, index, pixels)).colour
    if not bool(torch.isfinite(colour).all()):
        raise PseudoViewError("the teacher renders colours that are not finite; train it again with a lower rate")
    return (colour.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def render_pseudo_views(
    teacher: RadianceField,
    cameras: Cameras,
    *,
    step: int = 1,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = True,
) -> PseudoViews:
    """Windows of one size, rendered in turn; with a folder, kept there and gone on with after a crash.

    step, seed: see random_offsets. The folder holds views.npy (mapped into memory) and views.json (whose views, and how
    many are finished). Views of another teacher or of other cameras that lie there are replaced.
    """
    offsets = random_offsets(cameras, step, seed=seed)
    shape = (*offsets.shape[:3], 3)
    kept = None if folder is None else _Kept(Path(folder), _identity(teacher, cameras, offsets))
    finished = kept.finished() if kept else 0
    images = kept.images(shape, finished) if kept else np.empty(shape, np.uint8)
    group = max(1, RAYS_AT_ONCE // (shape[1] * shape[2]))
    with tqdm(total=shape[0], initial=finished, desc="pseudo views", disable=not progress, leave=False) as bar:
        for start in range(finished, shape[0], group):
            stop = min(start + group, shape[0])
            images[start:stop] = rendered_pixels(teacher, cameras[start:stop], step=step, offsets=offsets[start:stop])
            if kept:
                kept.finish(images, stop)
            bar.update(stop - start)
    log.info(
        "pseudo views: %d windows of %d pixels, %d of them found finished", shape[0], shape[1] * shape[2], finished
    )
    return PseudoViews(cameras, step, offsets, images)


@dataclass(frozen=True)
class _Kept:
    """A folder with views.npy, and views.json that says of which teacher and cameras and how many are finished."""

    folder: Path
    identity: str

    def finished(self) -> int:
        try:
            ledger = json.loads((self.folder / "views.json").read_text())
            return int(ledger["finished"]) if ledger["identity"] == self.identity else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def images(self, shape: tuple[int, ...], finished: int) -> NDArray[np.uint8]:
        path = self.folder / "views.npy"
        if not finished:
            # Zeros are written out first: a map over a file with holes dies of SIGBUS when the disk fills up.
            write_atomically(path, lambda temporary: _save_zeros(temporary, shape))
        try:
            images = np.load(path, mmap_mode="r+")
        except (OSError, ValueError) as error:
            raise PseudoViewError(
                f"{path} is damaged ({error}); delete its folder to render the views again"
            ) from error
        if images.shape != shape or images.dtype != np.uint8:
            raise PseudoViewError(f"{path} holds {images.dtype} {images.shape}, not uint8 {shape}; delete its folder")
        return images

    def finish(self, images: NDArray[np.uint8], count: int) -> None:
        if isinstance(images, np.memmap):
            images.flush()
        write_json(self.folder / "views.json", {"identity": self.identity, "finished": count})


def _save_zeros(path: Path, shape: tuple[int, ...]) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(shape, np.uint8))


def _identity(teacher: RadianceField, cameras: Cameras, offsets: NDArray[np.uint8]) -> str:
    """What finished views must have been rendered from: the teacher's weights, the cameras and the pixels."""
    digest = hashlib.sha256(offsets.tobytes())
    if not isinstance(teacher, nn.Module):
        raise PseudoViewError(
            f"views of a {type(teacher).__name__} cannot be kept in a folder; its weights are unknown"
        )
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    for field in fields(cameras):
        digest.update(getattr(cameras, field.name).contiguous().numpy().tobytes())
    return digest.hexdigest()
