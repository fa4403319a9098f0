"""Poses from the pictures alone: structure from motion with pycolmap (SIFT, exhaustive matching, the global mapper).

Works on the CPU in a folder of stages (pictures, features, matches, model); a stage that is there is not made again.
The frame of the result is arbitrary: see `georegistration`.
"""

import hashlib
import itertools
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from crowdnerf_lab.cameras import Cameras
from crowdnerf_lab.files import write_atomically

logger = logging.getLogger(__name__)

INSTALL = 'pip install "crowdnerf-lab[colmap]"'
LARGEST_SIDE = 1024
"""Features are looked for in pictures no larger than this, in pixels."""
FEATURES = 4096
"""Most features of one picture: matching takes the square of it."""
PAIRS_AT_ONCE = 512
"""Pairs matched between two steps of the progress bar."""
PHOTOS_FOR_DISTORTION = 10
"""A camera with fewer photos gets no lens distortion: three photos cannot tell it from the scene."""
FEWEST = 3
"""Fewer posed photos are no result."""


class MotionError(ValueError):
    """Structure from motion that gave no result; the message says what to try."""


@dataclass(frozen=True)
class Shot:
    """One picture to be posed. Shots of one phone with the same size and intrinsics share a camera.

    focal_px: a first value that is refined, None when nothing is known; centre_px: None is the middle.
    """

    phone: str
    image: UInt8[Tensor, "_ _ 3"]
    focal_px: float | None
    centre_px: tuple[float, float] | None


@dataclass(frozen=True)
class Motion:
    """Cameras and scene points in a frame of their own. rows: which shots were posed, ascending; cameras: theirs.

    colours: sRGB bytes of the points; reprojection_px: mean distance from where a point was seen to where it projects.
    """

    rows: Int[Tensor, "n"]
    cameras: Cameras
    points: Float[Tensor, "m 3"]
    colours: UInt8[Tensor, "m 3"]
    reprojection_px: float


def structure_from_motion(
    shots: Sequence[Shot], workspace: Path, *, threads: int, seed: int = 0, progress: bool = True
) -> Motion:
    """Pose shots that see the same things. Stages that `workspace` holds for the same shots are taken up again.

    Raises MotionError when pycolmap is missing or fewer than three shots could be posed.
    """
    colmap = _pycolmap()
    colmap.set_random_seed(seed)
    folder = workspace / _fingerprint(shots)
    pictures = [_picture(folder / "pictures" / f"{row:05d}.png", shot.image) for row, shot in enumerate(shots)]
    work = _Work(colmap=colmap, pictures=pictures, threads=threads, seed=seed, progress=progress)
    features = _stage(folder / "features.db", lambda database: _extract(work, database, shots))
    matches = _stage(folder / "matches.db", lambda database: _match(work, database, features))
    if not (folder / "model").is_dir():
        _map(work, matches, folder / "model")
    return _motion(colmap.Reconstruction(folder / "model"))


@dataclass(frozen=True)
class _Work:
    """What every stage needs. pictures: one file a shot, in one folder."""

    colmap: Any
    pictures: Sequence[Path]
    threads: int
    seed: int
    progress: bool


def _pycolmap() -> Any:
    """The module pycolmap, which is an extra. Pillow must be imported before it, as it is above: pycolmap 4.2 carries a
    zlib of its own that Pillow would pick up, and crash on, if it came second.
    """
    try:
        colmap: Any = import_module("pycolmap")
    except ImportError:
        raise MotionError(f"structure from motion needs pycolmap; install it with: {INSTALL}") from None
    if not hasattr(colmap, "global_mapping"):
        raise MotionError(f"pycolmap {colmap.__version__} has no global mapper; update it with: {INSTALL} --upgrade")
    colmap.logging.minloglevel = colmap.logging.ERROR.value
    return colmap


def _fingerprint(shots: Sequence[Shot]) -> str:
    """Names the folder of stages after what goes in, so that other photos never meet old stages."""
    digest = hashlib.sha256()
    for shot in shots:
        digest.update(repr((shot.phone, shot.focal_px, shot.centre_px, tuple(shot.image.shape))).encode())
        digest.update(shot.image.numpy().tobytes())
    return digest.hexdigest()[:16]


def _picture(path: Path, image: UInt8[Tensor, "_ _ 3"]) -> Path:
    """The shot as a file of its own: upright, and without EXIF, from which COLMAP would take positions by itself."""
    if path.is_file():
        return path
    return write_atomically(path, lambda partial: Image.fromarray(image.numpy()).save(partial, "PNG", compress_level=1))


def _stage(path: Path, make: Callable[[Path], None]) -> Path:
    """A database that is either complete or absent."""
    return path if path.is_file() else write_atomically(path, make)


def _extract(work: _Work, database: Path, shots: Sequence[Shot]) -> None:
    """Find SIFT features, one camera a phone."""
    options = work.colmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads, options.max_image_size = False, work.threads, LARGEST_SIDE
    options.sift.max_num_features = FEATURES
    groups: dict[Any, list[int]] = {}
    for row, shot in enumerate(shots):
        groups.setdefault((shot.phone, tuple(shot.image.shape), shot.focal_px, shot.centre_px), []).append(row)
    for rows in tqdm(groups.values(), desc="features", unit="camera", disable=not work.progress):
        work.colmap.extract_features(
            database,
            work.pictures[0].parent,
            image_names=[work.pictures[row].name for row in rows],
            camera_mode=work.colmap.CameraMode.SINGLE,
            reader_options=_camera_options(work.colmap, shots[rows[0]], photos=len(rows)),
            extraction_options=options,
            device=work.colmap.Device.cpu,
        )


def _camera_options(colmap: Any, shot: Shot, *, photos: int) -> Any:
    """The camera that a phone's photos share, with the focal length as a prior where one is known."""
    options = colmap.ImageReaderOptions()
    distorted = photos >= PHOTOS_FOR_DISTORTION
    options.camera_model = "SIMPLE_RADIAL" if distorted else "SIMPLE_PINHOLE"
    if shot.focal_px is not None:
        height, width = shot.image.shape[:2]
        centre_x, centre_y = shot.centre_px or (width / 2, height / 2)
        options.camera_params = f"{shot.focal_px},{centre_x},{centre_y}" + (",0" if distorted else "")
    return options


def _match(work: _Work, database: Path, features: Path) -> None:
    """Match every photo with every other, and keep what agrees with one epipolar geometry."""
    shutil.copyfile(features, database)
    options = work.colmap.FeatureMatchingOptions()
    options.use_gpu, options.num_threads = False, work.threads
    names = [path.name for path in work.pictures]
    pairs = [f"{a} {b}\n" for a, b in itertools.combinations(names, 2)]
    listed = database.with_suffix(".txt")
    try:
        with tqdm(total=len(pairs), desc="matches", unit="pair", disable=not work.progress) as bar:
            for start in range(0, len(pairs), PAIRS_AT_ONCE):
                some = pairs[start : start + PAIRS_AT_ONCE]
                listed.write_text("".join(some))
                pairing = work.colmap.ImportedPairingOptions()
                pairing.match_list_path = listed
                work.colmap.match_image_pairs(
                    database, matching_options=options, pairing_options=pairing, device=work.colmap.Device.cpu
                )
                bar.update(len(some))
    finally:
        listed.unlink(missing_ok=True)


def _map(work: _Work, matches: Path, model: Path) -> None:
    """Solve for cameras and points (GLOMAP, Pan et al. 2024) and keep the largest connected model.

    The incremental mapper took twice as long on the concert and posed fewer photos, with outliers of 20 m.
    """
    logger.info("mapping %d photos", len(work.pictures))
    options = work.colmap.GlobalPipelineOptions()
    options.num_threads, options.random_seed = work.threads, work.seed
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".model.") as partial:
        found = work.colmap.global_mapping(matches, work.pictures[0].parent, partial, options=options)
        posed = max((candidate.num_reg_images() for candidate in found.values()), default=0)
        if posed < FEWEST:
            raise MotionError(
                f"only {posed} of {len(work.pictures)} photos could be posed, too few points are seen in several; "
                "add photos taken between the others, and screen out blurred and dark ones"
            )
        largest = max(found.values(), key=lambda candidate: candidate.num_reg_images())
        complete = Path(partial) / "complete"
        complete.mkdir()
        largest.write(complete)
        complete.rename(model)


def _motion(reconstruction: Any) -> Motion:
    """pycolmap's reconstruction as tensors: its cameras are world-to-camera with OpenCV axes, pixel centres at +0.5."""
    images = sorted((image for image in reconstruction.images.values() if image.has_pose), key=lambda image: image.name)
    lenses = [reconstruction.cameras[image.camera_id] for image in images]
    points = reconstruction.points3D.values()
    poses = np.stack([image.cam_from_world().inverse().matrix() for image in images])
    return Motion(
        rows=torch.tensor([int(Path(image.name).stem) for image in images]),
        cameras=Cameras(
            camera_to_world=torch.tensor(poses, dtype=torch.float32),
            focal=torch.tensor([[lens.focal_length_x, lens.focal_length_y] for lens in lenses]),
            centre=torch.tensor([[lens.principal_point_x, lens.principal_point_y] for lens in lenses]),
            width=torch.tensor([lens.width for lens in lenses]),
            height=torch.tensor([lens.height for lens in lenses]),
            distortion=torch.tensor([_distortion(lens) for lens in lenses]),
        ),
        points=torch.tensor(np.array([point.xyz for point in points], dtype=np.float32).reshape(-1, 3)),
        colours=torch.tensor(np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3)),
        reprojection_px=reconstruction.compute_mean_reprojection_error(),
    )


def _distortion(lens: Any) -> list[float]:
    """k1, k2, p1, p2 of the two camera models that `_camera_options` chooses."""
    return [float(lens.params[3]) if lens.model.name == "SIMPLE_RADIAL" else 0.0, 0.0, 0.0, 0.0]
