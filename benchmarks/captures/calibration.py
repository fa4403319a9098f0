"""Poses of the concert and of real photos: how many, how exact, how fast; chosen pairs against all.

CROWDNERF_LUND and CROWDNERF_FOX name folders of real photos; without them their figures are absent.
"""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from crowdnerf_lab.cameras import rotation_angle
from crowdnerf_lab.captures.bundle import CaptureSet, Consent, concert
from crowdnerf_lab.captures.poses.adding import add_captures
from crowdnerf_lab.captures.poses.calibration import calibrate
from crowdnerf_lab.captures.poses.georegistration import similarity_between
from crowdnerf_lab.captures.poses.report import CalibrationReport
from crowdnerf_lab.captures.poses.structure_from_motion import MotionSettings
from crowdnerf_lab.captures.reading import read_captures

Figures = dict[str, float | int | str]
EXHAUSTIVE = MotionSettings(pairs="exhaustive")
ADDED = 4
"""UEs that are added to the others, three photos each."""


def measure(*, quick: bool) -> Figures:
    """The figures of calibration. quick: the concert's first 10 UEs alone, which stand for nothing."""
    captures = concert()
    if quick:
        captures = replace(captures, captures=captures.captures[:10], views=captures.views[:2])
    figures = {**_concert(captures), **_adding(captures, of=8 if quick else 44)}
    for name, measured in (("LUND", _lund), ("FOX", _fox)):
        setting = os.environ.get(f"CROWDNERF_{name}")
        figures |= measured(Path(setting)) if setting and not quick else {}
    return figures


def _concert(captures: CaptureSet) -> Figures:
    """All photos, the bad ones too: fitted to the truth, then to what phones report; then every pair compared."""
    with workspace() as folder:
        _, aligned = calibrate(captures, poses="colmap", align="truth", workspace=folder, progress=False)
        _, placed = calibrate(captures, poses="colmap", workspace=folder, progress=False)
    with workspace() as folder:
        _, exhaustive = calibrate(
            captures, poses="colmap", align="truth", workspace=folder, settings=EXHAUSTIVE, progress=False
        )
    return {
        "concert_photos": len(captures.photos),
        "concert_registered": len(aligned.registered),
        "concert_rotation_deg": math.degrees(aligned.median_rotation_error),
        "concert_position_m": aligned.median_position_error,
        "concert_reprojection_px": aligned.reprojection_px,
        "concert_seconds": aligned.seconds,
        "georegistered_rotation_deg": math.degrees(placed.median_rotation_error),
        "georegistered_position_m": placed.median_position_error,
        **of_pairs("144", aligned, exhaustive),
    }


def compared(captures: CaptureSet, name: str) -> Figures:
    """Chosen pairs against all pairs."""
    reports = []
    for settings in (MotionSettings(), EXHAUSTIVE):
        with workspace() as folder:
            _, report = calibrate(
                captures, poses="colmap", align="truth", workspace=folder, settings=settings, progress=False
            )
        reports.append(report)
    return of_pairs(name, *reports)


def of_pairs(name: str, guided: CalibrationReport, exhaustive: CalibrationReport) -> Figures:
    found: Figures = {}
    for kind, report in (("", guided), ("_exhaustive", exhaustive)):
        found[f"pairs_{name}{kind}"] = report.pairs
        found[f"registered_{name}{kind}"] = len(report.registered)
        found[f"seconds_{name}{kind}"] = report.seconds
        found[f"position_{name}{kind}_m"] = report.median_position_error
        found[f"rotation_{name}{kind}_deg"] = math.degrees(report.median_rotation_error)
    return found


def _adding(captures: CaptureSet, *, of: int) -> Figures:
    """The photos of a few UEs added to those of the others, against all of them at once."""
    first = captures.captures[:of]
    later = first[1 :: max(1, of // ADDED)][: ADDED if of > 10 else 2]
    together = replace(captures, captures=first)
    before = replace(captures, captures=tuple(capture for capture in first if capture not in later))
    with workspace() as folder:
        scene, report = calibrate(before, poses="colmap", align="truth", workspace=folder, progress=False)
        _, extended = add_captures(scene, together, report=report, workspace=folder, progress=False)
    _, anew = calibrate(together, poses="colmap", align="truth", progress=False)
    files = {photo.file for capture in later for photo in capture.photos}
    rows = [row for row in extended.rows if row.photo in files and row.registered]
    return {
        "adding_photos": len(files),
        "adding_to": len(before.photos),
        "adding_registered": len(rows),
        "adding_registered_anew": len(files & set(anew.registered)),
        "adding_seconds": extended.seconds,
        "adding_seconds_anew": anew.seconds,
        "adding_position_m": median(row.position_error for row in rows) if rows else "none added",
        "adding_rotation_deg": math.degrees(median(row.rotation_error for row in rows)) if rows else "none added",
    }


def _lund(folder: Path) -> Figures:
    """29 real phone photos with GPS and nothing else: the direction comes from positions and phones held level."""
    captures = read_captures(folder, consent=Consent(train=True, publish=False))
    _, report = calibrate(captures, poses="colmap", progress=False)
    return {
        "lund_photos": len(captures.photos),
        "lund_registered": len(report.registered),
        "lund_gps_error_m": report.median_gps_residual,
        "lund_reprojection_px": report.reprojection_px,
        "lund_scale_error": report.scale_error,
        "lund_turn_error_deg": math.degrees(report.turn_error),
        "lund_seconds": report.seconds,
    }


def _fox(folder: Path) -> Figures:
    """50 real frames without GPS, against the poses they came with, in units of the cameras' mean distance."""
    captures = read_captures(folder, consent=Consent(train=True, publish=False))
    given = {photo.file: photo.camera for photo in captures.photos}
    bare = tuple(
        capture.model_copy(
            update={"photos": tuple(photo.model_copy(update={"camera": None}) for photo in capture.photos)}
        )
        for capture in captures.captures
    )
    scene, report = calibrate(replace(captures, captures=bare), poses="colmap", align="none", progress=False)
    known = torch.tensor([camera.camera_to_world for file in scene.image_names if (camera := given[file]) is not None])
    found = similarity_between(known, scene.cameras.camera_to_world).of_poses(known)
    turns = rotation_angle(found[..., :3], scene.cameras.camera_to_world[..., :3].to(found))
    return {
        "fox_photos": len(captures.photos),
        "fox_registered": len(report.registered),
        "fox_position_share": float((found[..., 3] - scene.cameras.positions).norm(dim=-1).median()),
        "fox_rotation_deg": math.degrees(float(turns.median())),
        "fox_reprojection_px": report.reprojection_px,
        "fox_seconds": report.seconds,
    }


@contextmanager
def workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="calibration_") as folder:
        yield Path(folder)
