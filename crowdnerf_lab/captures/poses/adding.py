"""New photos in a calibrated scene without starting over: only they are searched for features, compared with likely
neighbours and posed against the points that are known. The poses that were there stay as they are.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool

from crowdnerf_lab.captures.bundle import CaptureSet
from crowdnerf_lab.captures.poses.calibration import CalibrationError, renumbered, scene_of_models
from crowdnerf_lab.captures.poses.georegistration import similarity_between
from crowdnerf_lab.captures.poses.motion import FEWEST, Motion, MotionError, Shot
from crowdnerf_lab.captures.poses.placement import Placed, moved
from crowdnerf_lab.captures.poses.report import CalibrationReport
from crowdnerf_lab.captures.poses.structure_from_motion import (
    MotionSettings,
    Work,
    adjust_robustly,
    choose_pairs,
    extract_features,
    keep_models,
    mapper_options,
    match_pairs,
    motion_in,
    stage,
    work_on,
)
from crowdnerf_lab.captures.poses.taken_photos import shot_of, taken_photos
from crowdnerf_lab.scene import PosedScene

logger = logging.getLogger(__name__)


def add_captures(
    scene: PosedScene,
    captures: CaptureSet,
    *,
    report: CalibrationReport,
    workspace: Path,
    photos: Literal["spoiled", "clean"] = "spoiled",
    settings: MotionSettings | None = None,
    progress: bool = True,
) -> tuple[PosedScene, CalibrationReport]:
    """The scene with the photos of `captures` that it lacks, in the same world.

    scene, report: what `calibrate` made by 'colmap' of part of the captures, with this workspace. captures: old and new
    ones together. settings: those of that calibration. The new report's rows are all photos; its seconds are those of
    adding. Raises CalibrationError when the workspace holds no such calibration, or structure from motion cannot run.
    """
    start = time.perf_counter()
    taken = taken_photos(captures, photos)
    shots = {row: shot_of(shot, shot.image) for row, shot in enumerate(taken) if shot.image is not None}
    threads = os.cpu_count() or 1
    try:
        motion = extended_motion(
            list(shots.values()), Path(workspace), threads=threads, settings=settings, progress=progress
        )
    except MotionError as error:
        raise CalibrationError(f"{captures.name}: {error}") from None
    motion = renumbered(motion, torch.tensor(list(shots)))
    there = _in_the_frame_of(scene, motion, [taken[row].photo.file for row in motion.rows.tolist()])
    placed = Placed(there, number=0, scale_error=report.scale_error, turn_error=report.turn_error)
    extended, extended_report = scene_of_models(captures, taken, [placed], align=report.align, start=start)
    added = len(set(extended_report.registered) - set(report.registered))
    logger.info("%d photos added to %s: %s", added, captures.name, extended_report.summary())
    return extended, extended_report


def extended_motion(
    shots: Sequence[Shot],
    workspace: Path,
    *,
    threads: int,
    settings: MotionSettings | None = None,
    progress: bool = True,
) -> Motion:
    """Structure from motion of all shots, from that of the most of them which `workspace` holds with the same settings.

    Known cameras, lenses and poses stay; their frame is that of the result. Raises MotionError when nothing is held.
    """
    settings = settings or MotionSettings()
    work = work_on(shots, workspace, threads=threads, settings=settings, progress=progress)
    if not (work.folder / "model").is_dir():
        known = _largest_part(workspace, work)
        matches = stage(work.folder / "matches.db", lambda database: _match_new(work, database, known, shots))
        _map_new(work, matches, known / "model" / "000", work.folder / "model")
    return motion_in(work)


def _largest_part(workspace: Path, work: Work) -> Path:
    """The folder of finished stages that holds the most of these pictures and no others."""
    wanted = set(work.names)
    parts = {
        folder: {path.name for path in (folder / "pictures").iterdir()}
        for folder in workspace.iterdir()
        if folder != work.folder and (folder / "model" / "000").is_dir() and (folder / "matches.db").is_file()
    }
    parts = {folder: names for folder, names in parts.items() if names <= wanted}
    if not parts:
        raise MotionError(
            f"{workspace} holds no finished calibration of a part of these {len(wanted)} photos; calibrate that part "
            "by 'colmap' with this workspace and unchanged photos first, or calibrate all of them anew"
        )
    return max(parts, key=lambda folder: (len(parts[folder]), folder.name))


def _match_new(work: Work, database: Path, known: Path, shots: Sequence[Shot]) -> None:
    """Find features of the new pictures and compare these with likely neighbours, old and new."""
    shutil.copyfile(known / "matches.db", database)
    old = {path.name for path in (known / "pictures").iterdir()}
    new: Bool[np.ndarray, "n"] = np.array([name not in old for name in work.names])
    extract_features(work, database, shots, np.flatnonzero(new).tolist())
    match_pairs(work, database, choose_pairs(work, database, shots, new=new))


def _map_new(work: Work, matches: Path, known: Path, model: Path) -> None:
    """Pose new pictures against known points, triangulate what they add, and adjust them alone."""
    before = work.colmap.Reconstruction(known)
    options = mapper_options(work)
    options.fix_existing_frames = True
    options.constant_cameras = set(before.cameras)
    options.multiple_models = False
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".mapping.") as scratch:
        found = work.colmap.incremental_mapping(matches, work.pictures[0].parent, scratch, options, known)
    extended = max(found.values(), key=lambda candidate: candidate.num_reg_images(), default=before)
    adjust_robustly(work, extended, fixed={image.name for image in before.images.values() if image.has_pose})
    keep_models([extended], model)


def _in_the_frame_of(scene: PosedScene, motion: Motion, files: Sequence[str]) -> Motion:
    """The motion moved so that the cameras which the scene has stand where they stand there."""
    rows = {name: row for row, name in enumerate(scene.image_names)}
    shared = [(index, rows[file]) for index, file in enumerate(files) if file in rows]
    if len(shared) < FEWEST:
        raise CalibrationError(
            f"{scene.name}: the scene holds {len(shared)} of the photos that the workspace knows, {FEWEST} are needed; "
            "give the scene that was calibrated with this workspace"
        )
    here, there = (torch.tensor(numbers) for numbers in zip(*shared, strict=True))
    model, world = motion.cameras.camera_to_world[here], scene.cameras.camera_to_world[there]
    return moved(motion, similarity_between(model, world))
