"""From captures to a posed scene: poses from phones' metadata, from structure from motion, from another tool, or the
truth for study.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from crowdnerf_lab.cameras import Cameras, rotation_angle
from crowdnerf_lab.captures.bundle import CaptureSet, Coordinates, Pose
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.poses.calibrated_scene import (
    FEWEST_PHOTOS,
    REFERENCE,
    CalibrationError,
    Found,
    calibrated_scene,
    ideal_camera,
    too_few,
)
from crowdnerf_lab.captures.poses.motion import Motion, MotionError
from crowdnerf_lab.captures.poses.placement import FEWEST_POINTS, Placed, Unplaced, placed_in_world
from crowdnerf_lab.captures.poses.report import Align, CalibrationReport, CalibrationRow, Poses
from crowdnerf_lab.captures.poses.structure_from_motion import MotionSettings, structure_from_motion
from crowdnerf_lab.captures.poses.taken_photos import (
    TakenPhoto,
    believed_pose,
    shot_of,
    taken_photos,
    whereabouts_of,
)
from crowdnerf_lab.captures.poses.world_fit import residuals_against
from crowdnerf_lab.scene import PosedScene, SceneError

__all__ = ["REFERENCE", "Align", "CalibrationError", "CalibrationReport", "CalibrationRow", "Poses", "calibrate"]

logger = logging.getLogger(__name__)

LARGEST_TURN = math.radians(30)
"""A pose from the pictures turned this far from what the phone reports is wrong: compasses err by some 5 degrees."""


def calibrate(
    captures: CaptureSet,
    *,
    poses: Poses = "metadata",
    photos: Literal["spoiled", "clean"] = "spoiled",
    align: Align = "metadata",
    workspace: Path | None = None,
    settings: MotionSettings | None = None,
    progress: bool = True,
) -> tuple[PosedScene, CalibrationReport]:
    """Give every photo a camera and gather the scene to train on.

    poses: 'metadata' as the phones report, 'colmap' by structure from motion (extra colmap), 'given' as another tool
    found them, 'truth' of a simulation. photos: 'clean' takes a simulation's unspoiled twins. align: what the frame of
    'colmap' is fitted to: the phones' positions and attitudes, the truth (for study), or 'none', a frame of its own,
    which it also falls back to when no photo has a position. workspace: keeps the finished stages of 'colmap', to be
    taken up by a later call with the same photos and by `add_captures`. settings: of 'colmap'.

    The scene holds the posed photos to train on, then the reference views of split 'test', held out, then those of
    'test_beyond', in neither. Photos without consent, readable picture or pose are left out and reported, as are groups
    of photos that share nothing with the others, unless positions tell where they belong. Raises CalibrationError, with
    advice, when fewer than three photos can be posed, or structure from motion cannot work on them.
    """
    if poses not in get_args(Poses):
        raise CalibrationError(f"there are no poses {poses!r}; choose one of {', '.join(get_args(Poses))}")
    start = time.perf_counter()
    taken = taken_photos(captures, photos)
    if poses == "given":
        scene, found = _given(captures, taken)
        report = report_of(captures, taken, found, poses=poses, align=align, start=start)
    elif poses == "colmap":
        with _folder(workspace) as folder:
            motion = _motion(captures.name, taken, folder, settings=settings, progress=progress)
        models, align = _models(captures.name, taken, motion, align=align)
        scene, report = scene_of_models(captures, taken, models, align=align, start=start)
    else:
        found = [_recorded(shot, poses) for shot in taken]
        scene = calibrated_scene(captures, taken, found, views=captures.views)
        report = report_of(captures, taken, found, poses=poses, align=align, start=start)
    logger.info("calibration of %s: %s", captures.name, report.summary())
    return scene, report


def scene_of_models(
    captures: CaptureSet,
    taken: Sequence[TakenPhoto],
    models: Sequence[Placed | Unplaced],
    *,
    align: Align,
    start: float,
) -> tuple[PosedScene, CalibrationReport]:
    """The scene of models in the world, the largest first (rows: those of `taken`), and its report."""
    placed = [model for model in models if isinstance(model, Placed)]
    found = _found(taken, models, compare=align != "none")
    scene = calibrated_scene(captures, taken, found, views=captures.views if align != "none" else ())
    if align == "none":
        scene = replace(scene, origin_wgs84=None)
    report = replace(
        report_of(captures, taken, found, poses="colmap", align=align, start=start),
        points=torch.cat([model.motion.points for model in placed]),
        colours=torch.cat([model.motion.colours for model in placed]),
        reprojection_px=placed[0].motion.reprojection_px,
        pairs=placed[0].motion.pairs,
        scale_error=placed[0].scale_error,
        turn_error=placed[0].turn_error,
    )
    return scene, report


def report_of(
    captures: CaptureSet,
    taken: Sequence[TakenPhoto],
    found: Sequence[Found],
    *,
    poses: Poses,
    align: Align,
    start: float,
) -> CalibrationReport:
    """The report on these cameras, without scene points. start: when calibration began, of `time.perf_counter`."""
    coordinates: Coordinates = "arbitrary" if poses == "colmap" and align == "none" else captures.coordinates
    return CalibrationReport(
        poses=poses,
        align=align,
        rows=tuple(
            _row(shot, known, world=coordinates != "arbitrary") for shot, known in zip(taken, found, strict=True)
        ),
        points=torch.zeros(0, 3),
        colours=torch.zeros(0, 3, dtype=torch.uint8),
        reprojection_px=math.nan,
        seconds=time.perf_counter() - start,
        coordinates=coordinates,
    )


def _given(captures: CaptureSet, taken: Sequence[TakenPhoto]) -> tuple[PosedScene, list[Found]]:
    """The scene in the frame of the tool that found the cameras."""
    from crowdnerf_lab.captures.poses.given_poses import scene_of_given

    try:
        scene = scene_of_given(captures)
    except (CaptureError, SceneError) as error:
        raise CalibrationError(f"{captures.name}: {error}") from None
    rows = {name: row for row, name in enumerate(scene.image_names)}
    found = []
    for shot in taken:
        row = rows.get(shot.photo.file)
        problem = shot.problem or f"{shot.photo.file} has no camera of another tool"
        found.append(Found(None, problem) if row is None else Found(scene.cameras[row : row + 1]))
    return scene, found


def _recorded(shot: TakenPhoto, poses: Poses) -> Found:
    """The camera that a photo's record tells of, or what is missing."""
    pose = believed_pose(shot.photo) if poses == "metadata" else shot.photo.truth and shot.photo.truth.camera_to_world
    if shot.problem:
        return Found(None, shot.problem)
    if pose is None:
        return Found(None, f"{shot.photo.file} has no {'reported pose' if poses == 'metadata' else 'truth'}")
    if shot.photo.focal_px is None:
        return Found(None, f"{shot.photo.file} has no focal_px; add it, or take poses from colmap")
    return Found(ideal_camera(shot.photo, pose, focal_px=shot.photo.focal_px))


def _motion(
    name: str, taken: Sequence[TakenPhoto], folder: Path, *, settings: MotionSettings | None, progress: bool
) -> Motion:
    """Structure from motion over the readable photos; its rows are those of `taken`."""
    shots = {row: shot_of(shot, shot.image) for row, shot in enumerate(taken) if shot.image is not None}
    if len(shots) < FEWEST_PHOTOS:
        raise CalibrationError(too_few(name, len(shots), [shot.problem for shot in taken]))
    try:
        motion = structure_from_motion(
            list(shots.values()), folder, threads=os.cpu_count() or 1, settings=settings, progress=progress
        )
    except MotionError as error:
        raise CalibrationError(f"{name}: {error}") from None
    return renumbered(motion, torch.tensor(list(shots)))


def _models(
    name: str, taken: Sequence[TakenPhoto], motion: Motion, *, align: Align
) -> tuple[tuple[Placed | Unplaced, ...], Align]:
    """The models of a motion (rows: those of `taken`) put into the world, and what they could be fitted to."""
    reports = [whereabouts_of(shot) for shot in taken]
    if align == "metadata" and not any(report.position for report in reports):
        logger.warning("%s: no photo has a position, so that the scene keeps a frame of its own", name)
        align = "none"
    truths: list[Pose | None] = [shot.photo.truth and shot.photo.truth.camera_to_world for shot in taken]
    try:
        return placed_in_world(motion, align=align, reports=reports, truths=truths), align
    except MotionError as error:
        raise CalibrationError(f"{name}: {error} (align={align!r})") from None


def renumbered(motion: Motion, rows: torch.Tensor) -> Motion:
    """The motion of a selection of photos, as rows of them all."""
    apart = tuple(renumbered(other, rows) for other in motion.apart)
    return replace(motion, rows=rows[motion.rows], apart=apart)


@contextmanager
def _folder(workspace: Path | None) -> Iterator[Path]:
    """The workspace, or a folder for once."""
    if workspace is not None:
        yield Path(workspace)
        return
    with tempfile.TemporaryDirectory(prefix="crowdnerf_lab_") as folder:
        yield Path(folder)


def _found(taken: Sequence[TakenPhoto], models: Sequence[Placed | Unplaced], *, compare: bool) -> list[Found]:
    """For each photo the camera that one of the models gives it, if its phone could have been held so.

    compare: the world is one that phones' attitudes can be compared with.
    """
    found = [Found(None, shot.problem or "too few of its points are seen in other photos") for shot in taken]
    for model in models:
        motion = model.motion
        for index, row in enumerate(motion.rows.tolist()):
            camera = motion.cameras[index : index + 1]
            points = int(motion.seen[index])
            problem = model.problem if isinstance(model, Unplaced) else _doubt(taken[row], camera, points, compare)
            found[row] = Found(
                camera=None if problem else camera,
                problem=problem,
                reprojection_px=float(motion.errors_px[index]),
                points=points,
                component=model.number,
            )
    return found


def _doubt(shot: TakenPhoto, camera: Cameras, points: int, compare: bool) -> str:
    """Why a pose cannot be right; empty when it can."""
    if points < FEWEST_POINTS:
        return f"shows only {points} of the scene's points, {FEWEST_POINTS} are needed to trust a pose"
    if shot.photo.reported is None or not compare:
        return ""
    phone = torch.tensor(shot.photo.reported.camera_to_world)
    turn = float(rotation_angle(camera.camera_to_world[0, :, :3], phone[:, :3]))
    if turn < LARGEST_TURN:
        return ""
    return f"turned {math.degrees(turn):.0f} degrees from what the phone reports; taken for wrong"


def _row(shot: TakenPhoto, found: Found, *, world: bool) -> CalibrationRow:
    """What is reported of one photo. world: its camera stands in the world of the truth and the phones' reports."""
    position_error, rotation_error, gps_residual, heading_residual = (math.nan,) * 4
    if found.camera is not None and world:
        pose = found.camera.camera_to_world
        if shot.photo.truth:
            truth = torch.tensor(shot.photo.truth.camera_to_world)
            position_error = float(torch.linalg.vector_norm(pose[0, :, 3] - truth[:, 3]))
            rotation_error = float(rotation_angle(pose[0, :, :3], truth[:, :3]))
        metres, turns = residuals_against(pose.numpy().astype(np.float64), [whereabouts_of(shot)])
        gps_residual, heading_residual = float(metres[0]), float(turns[0])
    return CalibrationRow(
        ue=shot.ue,
        photo=shot.photo.file,
        registered=found.camera is not None,
        position_error=position_error,
        rotation_error=rotation_error,
        problem=found.problem,
        reprojection_px=found.reprojection_px,
        points=found.points,
        component=found.component,
        gps_residual_m=gps_residual,
        heading_residual=heading_residual,
    )
