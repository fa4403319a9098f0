"""Poses from pictures alone: structure from motion with pycolmap (SIFT, chosen pairs, global or incremental mapper).

Works on the CPU in a folder of stages (pictures, features, matches, model); a stage that is there is not made again.
The frame of the result is arbitrary: see `georegistration`. Adding pictures to a finished model: see `adding`.
"""

import hashlib
import logging
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from crowdnerf_lab.captures.poses.advice import lack_of_features, lack_of_overlap, lack_of_parallax
from crowdnerf_lab.captures.poses.colmap_models import camera_options, motion_of
from crowdnerf_lab.captures.poses.motion import FEWEST, Motion, MotionError, Shot
from crowdnerf_lab.captures.poses.pair_selection import NEIGHBOURS, Pairs, Sighting, every_pair, select_pairs
from crowdnerf_lab.captures.poses.visual_retrieval import visual_signatures
from crowdnerf_lab.files import write_atomically

__all__ = ["Motion", "MotionError", "Shot", "structure_from_motion"]

logger = logging.getLogger(__name__)

INSTALL = 'pip install "crowdnerf-lab[colmap]"'
LARGEST_SIDE = 1024
"""Features are looked for in pictures no larger than this, in pixels."""
FEATURES = 4096
"""Most features of one picture: matching takes the square of it."""
PAIRS_AT_ONCE = 512
"""Pairs matched between two steps of the progress bar."""
FOCAL_GUESS = 1.2
"""Focal length over the longer side of a picture where none is known, to guess what it could have seen: COLMAP's."""

KEYPOINT_PX = 0.25
"""Residuals much larger than this, in pixels, lose their pull in the last adjustment: where a feature was found errs
mostly little and sometimes a lot. The concert: median errors of 0.21 m and 0.21 degrees before, 0.10 and 0.09 after.
"""
LARGEST_PX, SMALLEST_ANGLE_DEG = 4.0, 1.0
"""Points that miss by more than this after the last adjustment, or are seen under a smaller angle, are dropped."""
SETTLED = 1e-5
"""Relative change of the cost at which the last adjustment ends."""


@dataclass(frozen=True)
class MotionSettings:
    """How to find poses from pictures.

    pairs: 'guided' compares each picture with a number of likely `neighbours`, 'exhaustive' every two. mapper: 'global'
    solves for all cameras at once (GLOMAP, Pan et al. 2024); 'incremental' adds one after the other, which took twice
    as long on the concert and posed fewer photos, with outliers of 20 m. seed: of the samples that are drawn.
    """

    pairs: Literal["guided", "exhaustive"] = "guided"
    neighbours: int = NEIGHBOURS
    mapper: Literal["global", "incremental"] = "global"
    seed: int = 0


def structure_from_motion(
    shots: Sequence[Shot],
    workspace: Path,
    *,
    threads: int,
    settings: MotionSettings | None = None,
    progress: bool = True,
) -> Motion:
    """Pose shots that see the same things. Stages that `workspace` holds for the same shots are taken up again.

    Shots that fall into several models without common points come back as the largest, with the others in `apart`.
    Raises MotionError, with advice, when pycolmap is missing, the pictures show too little, share too little or were
    taken from one spot, or fewer than three could be posed.
    """
    settings = settings or MotionSettings()
    work = work_on(shots, workspace, threads=threads, settings=settings, progress=progress)
    features = stage(work.folder / "features.db", lambda database: _extract(work, database, shots))
    matches = stage(work.folder / "matches.db", lambda database: _match(work, database, features, shots))
    if not (work.folder / "model").is_dir():
        _map(work, matches, work.folder / "model")
    return motion_in(work)


@dataclass(frozen=True)
class Work:
    """What every stage needs. folder: where the stages of these shots lie; pictures: one file a shot, in one folder."""

    colmap: Any
    folder: Path
    pictures: Sequence[Path]
    settings: MotionSettings
    threads: int
    progress: bool

    @property
    def names(self) -> list[str]:
        """The pictures' file names, in the order of the shots."""
        return [path.name for path in self.pictures]


def work_on(shots: Sequence[Shot], workspace: Path, *, threads: int, settings: MotionSettings, progress: bool) -> Work:
    """A folder for these shots, named after them and the settings, with their pictures."""
    colmap = _pycolmap()
    colmap.set_random_seed(settings.seed)
    names = _names(shots)
    folder = workspace / hashlib.sha256(repr((names, settings)).encode()).hexdigest()[:16]
    pictures = [_picture(folder / "pictures" / name, shot.image) for name, shot in zip(names, shots, strict=True)]
    return Work(colmap, folder, pictures, settings, threads=threads, progress=progress)


def motion_in(work: Work) -> Motion:
    """What the finished stages of a folder hold: the largest model, and the others apart."""
    models = [work.colmap.Reconstruction(path) for path in sorted((work.folder / "model").iterdir())]
    motions = [motion_of(model, work.names) for model in models]
    with opened(work.colmap, work.folder / "matches.db") as database:
        compared = database.num_matched_image_pairs()
    return replace(motions[0], apart=tuple(motions[1:]), pairs=compared)


@contextmanager
def opened(colmap: Any, path: Path) -> Iterator[Any]:
    """A database, closed afterwards; what a process left beside it when it was killed is removed, since SQLite would
    take it for unfinished writes, and COLMAP end the process.
    """
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    database = colmap.Database.open(path)
    try:
        yield database
    finally:
        database.close()


def choose_pairs(
    work: Work, features: Path, shots: Sequence[Shot], *, new: Bool[np.ndarray, "n"] | None = None
) -> Pairs:
    """The pairs worth comparing, by what is known of each shot and by how alike the pictures are. new: as there."""
    with opened(work.colmap, features) as database:
        numbers = {image.name: image.image_id for image in database.read_all_images()}
        descriptors = [np.asarray(database.read_descriptors(numbers[name]).data) for name in work.names]
    signatures = visual_signatures(descriptors, seed=work.settings.seed)
    sightings = [_sighting(shot) for shot in shots]
    return select_pairs(sightings, signatures, neighbours=work.settings.neighbours, new=new)


def extract_features(work: Work, database: Path, shots: Sequence[Shot], rows: Sequence[int]) -> None:
    """Find SIFT features of some shots, one camera a lens."""
    options = work.colmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads, options.max_image_size = False, work.threads, LARGEST_SIDE
    options.sift.max_num_features = FEATURES
    lenses: dict[Any, list[int]] = {}
    for row in rows:
        lenses.setdefault(shots[row].camera_key, []).append(row)
    for shared in tqdm(lenses.values(), desc="features", unit="camera", disable=not work.progress):
        work.colmap.extract_features(
            database,
            work.pictures[0].parent,
            image_names=[work.pictures[row].name for row in shared],
            camera_mode=work.colmap.CameraMode.SINGLE,
            reader_options=camera_options(work.colmap, shots[shared[0]], photos=len(shared)),
            extraction_options=options,
            device=work.colmap.Device.cpu,
        )


def match_pairs(work: Work, database: Path, pairs: Pairs) -> None:
    """Match pairs of pictures, and keep what agrees with one epipolar geometry."""
    options = work.colmap.FeatureMatchingOptions()
    options.use_gpu, options.num_threads = False, work.threads
    names = work.names
    lines = [f"{names[first]} {names[second]}\n" for first, second in pairs]
    listed = database.with_suffix(".txt")
    try:
        with tqdm(total=len(lines), desc="matches", unit="pair", disable=not work.progress) as bar:
            for start in range(0, len(lines), PAIRS_AT_ONCE):
                some = lines[start : start + PAIRS_AT_ONCE]
                listed.write_text("".join(some))
                pairing = work.colmap.ImportedPairingOptions()
                pairing.match_list_path = listed
                work.colmap.match_image_pairs(
                    database, matching_options=options, pairing_options=pairing, device=work.colmap.Device.cpu
                )
                bar.update(len(some))
    finally:
        listed.unlink(missing_ok=True)


def keep_models(models: Sequence[Any], target: Path) -> None:
    """Write models as target/0, target/1 and so on, all or nothing."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".model.") as partial:
        complete = Path(partial) / "complete"
        for number, model in enumerate(models):
            (complete / f"{number:03d}").mkdir(parents=True)
            model.write(complete / f"{number:03d}")
        complete.rename(target)


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
    colmap.logging.minloglevel = colmap.logging.FATAL.value
    return colmap


def _names(shots: Sequence[Shot]) -> list[str]:
    """File names told by what a shot is, so that other photos never meet old stages; the same photo twice gets two."""
    names, seen = [], Counter[str]()
    for shot in shots:
        known = (shot.phone, shot.camera_key, shot.sighting)
        digest = hashlib.sha256(repr(known).encode() + shot.image.numpy().tobytes()).hexdigest()[:20]
        names.append(f"{digest}-{seen[digest]}.png")
        seen[digest] += 1
    return names


def _picture(path: Path, image: UInt8[Tensor, "_ _ 3"]) -> Path:
    """The shot as a file of its own: upright, and without EXIF, from which COLMAP would take positions by itself."""
    if path.is_file():
        return path
    return write_atomically(path, lambda partial: Image.fromarray(image.numpy()).save(partial, "PNG", compress_level=1))


def stage(path: Path, make: Callable[[Path], None]) -> Path:
    """A database that is either complete or absent."""
    return path if path.is_file() else write_atomically(path, make)


def _sighting(shot: Shot) -> Sighting:
    """What is known of a shot's place, at least its angle of view."""
    height, width = shot.image.shape[:2]
    half_view = math.atan(0.5 * max(height, width) / (shot.focal_px or FOCAL_GUESS * max(height, width)))
    known = shot.sighting or Sighting(shot.phone, time_s=math.inf, position=None, forward=None, half_view=0.0)
    return replace(known, half_view=half_view)


def _extract(work: Work, database: Path, shots: Sequence[Shot]) -> None:
    extract_features(work, database, shots, range(len(shots)))


def _match(work: Work, database: Path, features: Path, shots: Sequence[Shot]) -> None:
    """Compare what is worth comparing, unless the pictures show too little to compare anything."""
    with opened(work.colmap, features) as found:
        _refuse(lack_of_features(found))
    exhaustive = work.settings.pairs == "exhaustive"
    pairs = every_pair(len(shots)) if exhaustive else choose_pairs(work, features, shots)
    shutil.copyfile(features, database)
    match_pairs(work, database, pairs)
    if any(shot.focal_px is None and shot.given is None for shot in shots):
        options = work.colmap.ViewGraphCalibrationOptions()
        options.random_seed = work.settings.seed
        work.colmap.calibrate_view_graph(database, options)


def _map(work: Work, matches: Path, model: Path) -> None:
    """Solve for cameras and points, and keep every model of three photos or more, the largest first."""
    logger.info("mapping %d photos", len(work.pictures))
    with opened(work.colmap, matches) as database:
        overlap = lack_of_overlap(database)
        _refuse(lack_of_parallax(work.colmap, database))
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".mapping.") as scratch:
        found = sorted(_mapped(work, matches, Path(scratch)).values(), key=lambda m: -m.num_reg_images())
    models = [candidate for candidate in found if candidate.num_reg_images() >= FEWEST]
    if not models:
        raise MotionError(
            f"only {found[0].num_reg_images() if found else 0} of {len(work.pictures)} photos could be posed: "
            + (overlap or "too few points are seen in three photos or more; add photos taken between the others")
        )
    for candidate in models:
        adjust_robustly(work, candidate)
    keep_models(models, model)


def adjust_robustly(work: Work, model: Any, *, fixed: Collection[str] = ()) -> None:
    """Move cameras and points to where they fit best, without features found at a wrong place pulling (Cauchy's loss).

    fixed: pictures whose camera stays where it is, with its lens.
    """
    options = work.colmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.loss_function_type = work.colmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = KEYPOINT_PX
    options.ceres.solver_options.function_tolerance = SETTLED
    options.ceres.solver_options.num_threads = work.threads
    config = work.colmap.BundleAdjustmentConfig()
    for image in model.images.values():
        if image.has_pose:
            config.add_image(image.image_id)
        if image.has_pose and image.name in fixed:
            config.set_constant_rig_from_world_pose(image.frame_id)
            config.set_constant_cam_intrinsics(image.camera_id)
    if not fixed:
        config.fix_gauge(work.colmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    work.colmap.create_default_bundle_adjuster(options, config, model).solve()
    manager = work.colmap.ObservationManager(model)
    manager.filter_all_points3D(LARGEST_PX, SMALLEST_ANGLE_DEG)
    model.update_point_3d_errors()


def mapper_options(work: Work) -> Any:
    """Options of the incremental mapper, alike for whole scenes and for additions."""
    options = work.colmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.min_model_size = work.threads, work.settings.seed, FEWEST
    return options


def _mapped(work: Work, matches: Path, scratch: Path) -> dict[int, Any]:
    """The models that one of COLMAP's mappers finds."""
    pictures = work.pictures[0].parent
    if work.settings.mapper == "incremental":
        return work.colmap.incremental_mapping(matches, pictures, scratch, options=mapper_options(work))
    options = work.colmap.GlobalPipelineOptions()
    options.num_threads, options.random_seed = work.threads, work.settings.seed
    options.min_model_size = FEWEST
    return work.colmap.global_mapping(matches, pictures, scratch, options=options)


def _refuse(reason: str) -> None:
    if reason:
        raise MotionError(reason)
