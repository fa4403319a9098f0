"""Poses of the concert, of a larger crowd and of real photos: how many, how exact, how fast; chosen pairs against all.

The crowd of 400 is made of the concert's own pictures: 144 spoiled photos, their 144 clean twins, 20 views between and
beyond the UEs, 64 moments of the moving event and 28 crops of clean photos. All but the first report positions and
attitudes as the concert's phones do: bias 3, 3, 5 m and 6 degrees of heading a UE, seed 0.
CROWDNERF_LUND and CROWDNERF_FOX name folders of real photos; without them their figures are absent.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from crowdnerf_lab.cameras import rotation_angle
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Consent, Photo, Pose, ReportedPose, Truth, concert
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
CROPS = 28


def measure(*, quick: bool) -> Figures:
    """The figures of calibration. quick: the concert's first 10 UEs alone, which stand for nothing."""
    captures = concert()
    if quick:
        captures = replace(captures, captures=captures.captures[:10], views=captures.views[:2])
    figures = {**_concert(captures), **_adding(captures, of=8 if quick else 44)}
    if not quick:
        with _workspace() as folder:
            figures |= _compared(_crowd_of_400(captures, folder / "crowd"), "400")
    for name, measured in (("LUND", _lund), ("FOX", _fox)):
        setting = os.environ.get(f"CROWDNERF_{name}")
        figures |= measured(Path(setting)) if setting and not quick else {}
    return figures


def _concert(captures: CaptureSet) -> Figures:
    """All photos, the bad ones too: fitted to the truth, then to what phones report; then every pair compared."""
    with _workspace() as folder:
        _, aligned = calibrate(captures, poses="colmap", align="truth", workspace=folder, progress=False)
        _, placed = calibrate(captures, poses="colmap", workspace=folder, progress=False)
    with _workspace() as folder:
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
        **_of_pairs("144", aligned, exhaustive),
    }


def _compared(captures: CaptureSet, name: str) -> Figures:
    """Chosen pairs against all pairs."""
    reports = []
    for settings in (MotionSettings(), EXHAUSTIVE):
        with _workspace() as folder:
            _, report = calibrate(
                captures, poses="colmap", align="truth", workspace=folder, settings=settings, progress=False
            )
        reports.append(report)
    return _of_pairs(name, *reports)


def _of_pairs(name: str, guided: CalibrationReport, exhaustive: CalibrationReport) -> Figures:
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
    with _workspace() as folder:
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
def _workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="calibration_") as folder:
        yield Path(folder)


def _crowd_of_400(captures: CaptureSet, root: Path) -> CaptureSet:
    """See the module's docstring."""
    root.mkdir()
    for folder in ("train", "train_clean", "test", "dyn"):
        shutil.copytree(captures.root / folder, root / folder)
    generator = torch.Generator().manual_seed(0)
    crowd = [capture.model_copy(update={"photos": _without_extras(capture.photos)}) for capture in captures.captures]
    crowd += [
        _newcomer(f"{capture.ue}-twin", [_twin(photo) for photo in capture.photos], generator)
        for capture in captures.captures
    ]
    for view in captures.views:
        photo = _simulated(view.file, view.width, view.height, view.focal_px, view.camera_to_world)
        crowd.append(_newcomer(f"view-{len(crowd):03d}", [photo], generator))
    for photo in [capture.photos[0] for capture in captures.captures][:CROPS]:
        crowd.append(_newcomer(f"crop-{len(crowd):03d}", [_cropped(_twin(photo), root)], generator))
    return replace(captures, root=root, captures=tuple(crowd), views=())


def _without_extras(photos: tuple[Photo, ...]) -> tuple[Photo, ...]:
    bare = {"clean_file": None, "occluder_mask_file": None}
    return tuple(
        photo.model_copy(update={"truth": photo.truth and photo.truth.model_copy(update=bare)}) for photo in photos
    )


def _simulated(file: str, width: int, height: int, focal_px: float, pose: Pose) -> Photo:
    truth = Truth(
        camera_to_world=pose,
        exposure_ev=0.0,
        white_balance=(1.0, 1.0, 1.0),
        blur_px=0.0,
        spoiled_by=None,
        occluded=0.0,
        clean_file=None,
        occluder_mask_file=None,
    )
    return Photo(file=file, width=width, height=height, focal_px=focal_px, time_s=0.0, truth=truth)


def _twin(photo: Photo) -> Photo:
    """The same view without spoiling, as a photo of its own."""
    if photo.truth is None or photo.truth.clean_file is None or photo.focal_px is None:
        raise ValueError(f"{photo.file} has no clean twin; take the concert of a checkout")
    return _simulated(photo.truth.clean_file, photo.width, photo.height, photo.focal_px, photo.truth.camera_to_world)


def _cropped(photo: Photo, root: Path) -> Photo:
    """The middle three quarters of a photo, as somebody who zoomed in would have taken it."""
    width, height = photo.width * 3 // 4, photo.height * 3 // 4
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    file = f"crops/{Path(photo.file).stem}.jpg"
    (root / "crops").mkdir(exist_ok=True)
    with Image.open(root / photo.file) as picture:
        picture.crop((left, top, left + width, top + height)).save(root / file, quality=92)
    return photo.model_copy(update={"file": file, "width": width, "height": height})


def _newcomer(ue: str, photos: list[Photo], generator: torch.Generator) -> Capture:
    """A UE whose phone reports what the truth makes of its own bias and of the noise of each shot."""
    bias = torch.randn(3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 3.0, 5.0])
    turn = math.radians(6) * float(torch.randn((), generator=generator))
    cosine, sine = math.cos(turn), math.sin(turn)
    yaw = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    reporting = []
    for photo in photos:
        truth = torch.tensor(photo.truth.camera_to_world if photo.truth else [], dtype=torch.float64)
        noise = 0.4 * torch.randn(3, generator=generator, dtype=torch.float64)
        pose = torch.cat([yaw @ truth[:, :3], (truth[:, 3] + bias + noise)[:, None]], dim=1).tolist()
        reported = ReportedPose.model_validate({"camera_to_world": pose})
        reporting.append(photo.model_copy(update={"reported": reported}))
    consent = Consent(train=True, publish=True)
    return Capture(ue=ue, device="unknown", consent=consent, licence="CC0-1.0", photos=tuple(reporting))
