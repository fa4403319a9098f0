"""From captures to a posed scene: poses from phones' metadata, from structure from motion, or the truth for study."""

import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from crowdnerf_lab.cameras import Cameras, concatenated, pinhole, rotation_angle
from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Photo, ReferenceView
from crowdnerf_lab.captures.georegistration import georegistered
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.structure_from_motion import Motion, MotionError, Shot, structure_from_motion
from crowdnerf_lab.scene import PosedScene, bounds_of

logger = logging.getLogger(__name__)

Poses = Literal["metadata", "truth", "colmap"]
Align = Literal["metadata", "truth"]
FEWEST_PHOTOS = 3
"""With fewer views nothing can be reconstructed."""
LARGEST_TURN = math.radians(30)
"""A pose from the pictures turned this far from what the phone reports is wrong: compasses err by some 5 degrees."""
REFERENCE = "reference"
"""Name under which the reference views stand among a scene's captures."""


class CalibrationError(ValueError):
    """Captures that cannot be posed; the message says what is missing and what to do."""


@dataclass(frozen=True)
class CalibrationRow:
    """One photo. position_error (m) and rotation_error (radians) against the truth; NaN where either is unknown.

    problem: why the photo has no pose; empty when it was registered.
    """

    ue: str
    photo: str
    registered: bool
    position_error: float
    rotation_error: float
    problem: str


@dataclass(frozen=True)
class CalibrationReport:
    """How the poses of one event were found. rows: every photo, in the captures' order.

    points, colours: the scene points that structure from motion rests on (metres, sRGB bytes), in the scene's frame;
    none for other poses. reprojection_px: their mean error, NaN without points. seconds: wall clock.
    """

    poses: Poses
    align: Align
    rows: tuple[CalibrationRow, ...]
    points: Float[Tensor, "m 3"]
    colours: UInt8[Tensor, "m 3"]
    reprojection_px: float
    seconds: float

    @property
    def registered(self) -> tuple[str, ...]:
        """The photos that have a pose."""
        return tuple(row.photo for row in self.rows if row.registered)

    @property
    def unregistered(self) -> tuple[str, ...]:
        """The photos that have none."""
        return tuple(row.photo for row in self.rows if not row.registered)

    @property
    def median_position_error(self) -> float:
        """Metres; NaN when no truth is known."""
        return _median([row.position_error for row in self.rows])

    @property
    def median_rotation_error(self) -> float:
        """Radians; NaN when no truth is known."""
        return _median([row.rotation_error for row in self.rows])

    def summary(self) -> str:
        """One line: how many photos were posed, how well, how fast."""
        words = [f"{len(self.registered)} of {len(self.rows)} photos posed by {self.poses}"]
        if len(self.points):
            words.append(f"{len(self.points)} points at {self.reprojection_px:.2f} px")
        if math.isfinite(self.median_position_error):
            degrees = math.degrees(self.median_rotation_error)
            words.append(f"median error {self.median_position_error:.2f} m and {degrees:.2f} degrees")
        return ", ".join([*words, f"{self.seconds:.1f} s"])


def calibrate(
    captures: CaptureSet,
    *,
    poses: Poses = "metadata",
    photos: Literal["spoiled", "clean"] = "spoiled",
    align: Align = "metadata",
    workspace: Path | None = None,
    progress: bool = True,
) -> tuple[PosedScene, CalibrationReport]:
    """Give every photo a camera and gather the scene to train on.

    poses: 'metadata' as the phones report, 'colmap' by structure from motion (extra colmap), 'truth' of a simulation.
    photos: 'clean' takes a simulation's unspoiled twins. align: what the frame of 'colmap' is fitted to; 'truth' is for
    study. workspace: keeps the finished stages of 'colmap', to be taken up by a later call with the same photos.

    The scene holds the posed photos to train on, then the reference views of split 'test', held out, then those of
    'test_beyond', in neither. Photos without consent, readable picture or pose are left out and reported. Raises
    CalibrationError when fewer than three photos can be posed, or structure from motion cannot run.
    """
    if poses not in get_args(Poses):
        raise CalibrationError(f"there are no poses {poses!r}; choose one of {', '.join(get_args(Poses))}")
    start = time.perf_counter()
    taken = [_taken(captures, capture, photo, photos) for capture in captures.captures for photo in capture.photos]
    if poses == "colmap":
        motion = _motion_in_the_world(captures.name, taken, align=align, workspace=workspace, progress=progress)
        points, colours, reprojection_px = motion.points, motion.colours, motion.reprojection_px
        cameras = _cameras_of(motion, taken)
    else:
        points, colours, reprojection_px = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8), math.nan
        cameras = [_recorded_camera(shot, poses) for shot in taken]
    scene = _scene(captures, taken, cameras)
    report = CalibrationReport(
        poses=poses,
        align=align,
        rows=tuple(_row(shot, camera) for shot, camera in zip(taken, cameras, strict=True)),
        points=points,
        colours=colours,
        reprojection_px=reprojection_px,
        seconds=time.perf_counter() - start,
    )
    logger.info("calibration of %s: %s", captures.name, report.summary())
    return scene, report


@dataclass(frozen=True)
class _Taken:
    """A photo of a capture with its pixels, or with what keeps them away."""

    ue: str
    photo: Photo
    image: UInt8[Tensor, "_ _ 3"] | None
    problem: str


def _taken(captures: CaptureSet, capture: Capture, photo: Photo, kind: Literal["spoiled", "clean"]) -> _Taken:
    """Read a photo, or its clean twin."""
    file = photo.file if kind == "spoiled" else photo.truth and photo.truth.clean_file
    if not capture.consent.train:
        return _Taken(capture.ue, photo, image=None, problem=f"{capture.ue} does not consent to training")
    if file is None:
        return _Taken(capture.ue, photo, image=None, problem=f"{photo.file} has no clean twin")
    try:
        return _Taken(capture.ue, photo, image=_picture(captures.path_of(file), photo), problem="")
    except PhotoError as error:
        return _Taken(capture.ue, photo, image=None, problem=str(error))


def _picture(path: Path, record: Photo | ReferenceView) -> UInt8[Tensor, "_ _ 3"]:
    """A picture of the size that its record, and so its focal length, is for."""
    image = read_photo(path)
    height, width = image.shape[:2]
    if (width, height) != (record.width, record.height):
        raise PhotoError(
            f"{path} is {width}x{height}, its manifest says {record.width}x{record.height}; correct the manifest"
        )
    return image


def _recorded_camera(shot: _Taken, poses: Poses) -> Cameras | str:
    """The camera that a photo's record tells of, or what is missing."""
    record = shot.photo.reported if poses == "metadata" else shot.photo.truth
    if shot.problem:
        return shot.problem
    if record is None:
        return f"{shot.photo.file} has no {'reported pose' if poses == 'metadata' else 'truth'}"
    if shot.photo.focal_px is None:
        return f"{shot.photo.file} has no focal_px; add it, or take poses from colmap"
    return _camera(shot.photo, record.camera_to_world, focal_px=shot.photo.focal_px)


def _camera(record: Photo | ReferenceView, pose: Sequence[Sequence[float]], *, focal_px: float) -> Cameras:
    """A batch of one ideal camera."""
    camera = pinhole(torch.tensor([pose]), torch.tensor([focal_px]), width=record.width, height=record.height)
    if isinstance(record, Photo) and record.centre_px is not None:
        camera = replace(camera, centre=torch.tensor([record.centre_px]))
    return camera


def _motion_in_the_world(
    name: str, taken: Sequence[_Taken], *, align: Align, workspace: Path | None, progress: bool
) -> Motion:
    """Structure from motion over the readable photos, fitted to `align`; its rows are those of `taken`."""
    motion = _motion(name, taken, workspace=workspace, progress=progress)
    photos = [taken[row].photo for row in motion.rows.tolist()]
    records = [photo.reported if align == "metadata" else photo.truth for photo in photos]
    try:
        return georegistered(motion, [record and record.camera_to_world for record in records])
    except MotionError as error:
        raise CalibrationError(f"{name}: {error} (align={align!r})") from None


def _motion(name: str, taken: Sequence[_Taken], *, workspace: Path | None, progress: bool) -> Motion:
    usable = [row for row, shot in enumerate(taken) if shot.image is not None]
    if len(usable) < FEWEST_PHOTOS:
        raise CalibrationError(_too_few(name, len(usable), [shot.problem for shot in taken]))
    shots = [
        Shot(phone=shot.ue, image=shot.image, focal_px=shot.photo.focal_px, centre_px=shot.photo.centre_px)
        for shot in taken
        if shot.image is not None
    ]
    threads = os.cpu_count() or 1
    with _folder(workspace) as folder:
        try:
            motion = structure_from_motion(shots, folder, threads=threads, progress=progress)
        except MotionError as error:
            raise CalibrationError(f"{name}: {error}") from None
    return replace(motion, rows=torch.tensor(usable)[motion.rows])


@contextmanager
def _folder(workspace: Path | None) -> Iterator[Path]:
    """The workspace, or a folder for once."""
    if workspace is not None:
        yield Path(workspace)
        return
    with tempfile.TemporaryDirectory(prefix="crowdnerf_lab_") as folder:
        yield Path(folder)


def _cameras_of(motion: Motion, taken: Sequence[_Taken]) -> list[Cameras | str]:
    """A batch of one camera for each photo that was posed as its phone could have been held, else what is wrong."""
    cameras: list[Cameras | str] = [shot.problem or "too few of its points are seen in other photos" for shot in taken]
    for index, row in enumerate(motion.rows.tolist()):
        camera, reported = motion.cameras[index : index + 1], taken[row].photo.reported
        phone = torch.tensor(reported.camera_to_world) if reported else camera.camera_to_world[0]
        turn = float(rotation_angle(camera.camera_to_world[0, :, :3], phone[:, :3]))
        turned = f"turned {math.degrees(turn):.0f} degrees from what the phone reports; taken for wrong"
        cameras[row] = camera if turn < LARGEST_TURN else turned
    return cameras


def _row(shot: _Taken, camera: Cameras | str) -> CalibrationRow:
    position_error, rotation_error = math.nan, math.nan
    if isinstance(camera, Cameras) and shot.photo.truth:
        truth = torch.tensor(shot.photo.truth.camera_to_world)
        position_error = float(torch.linalg.vector_norm(camera.positions[0] - truth[:, 3]))
        rotation_error = float(rotation_angle(camera.camera_to_world[0, :, :3], truth[:, :3]))
    return CalibrationRow(
        ue=shot.ue,
        photo=shot.photo.file,
        registered=isinstance(camera, Cameras),
        position_error=position_error,
        rotation_error=rotation_error,
        problem="" if isinstance(camera, Cameras) else camera,
    )


def _scene(captures: CaptureSet, taken: Sequence[_Taken], cameras: Sequence[Cameras | str]) -> PosedScene:
    """The posed photos, then the views that the study compares against."""
    photos = [
        (shot, shot.image, camera)
        for shot, camera in zip(taken, cameras, strict=True)
        if isinstance(camera, Cameras) and shot.image is not None
    ]
    if len(photos) < FEWEST_PHOTOS:
        raise CalibrationError(
            _too_few(captures.name, len(photos), [camera for camera in cameras if isinstance(camera, str)])
        )
    views = [view for split in ("test", "test_beyond") for view in captures.views if view.split == split]
    view_cameras = [_camera(view, view.camera_to_world, focal_px=view.focal_px) for view in views]
    photo_cameras = concatenated([camera for _, _, camera in photos])
    ues = tuple(dict.fromkeys(shot.ue for shot, _, _ in photos))
    owners = [ues.index(shot.ue) for shot, _, _ in photos] + [len(ues)] * len(views)
    tests = sum(view.split == "test" for view in views)
    return PosedScene(
        name=captures.name,
        image_names=(*(shot.photo.file for shot, _, _ in photos), *(view.file for view in views)),
        cameras=concatenated([photo_cameras, *view_cameras]),
        images=(
            *(image for _, image, _ in photos),
            *(_picture(captures.path_of(view.file), view) for view in views),
        ),
        masks=None,
        bounds=bounds_of(photo_cameras),
        captures=ues + ((REFERENCE,) if views else ()),
        capture_of_image=torch.tensor(owners, dtype=torch.int64),
        time_of_image=torch.tensor([*(shot.photo.time_s for shot, _, _ in photos), *(view.time_s for view in views)]),
        train=torch.arange(len(photos)),
        held_out=torch.arange(len(photos), len(photos) + tests),
        origin_wgs84=captures.origin_wgs84,
    )


def _too_few(name: str, posed: int, problems: Sequence[str]) -> str:
    found = f" (the first of {len(problems)} left out: {problems[0]})" if problems else ""
    return (
        f"{name}: {posed} photos can be posed, at least {FEWEST_PHOTOS} views of the same thing are needed and 10 or "
        f"more give a usable picture{found}; add photos, loosen the screening, or choose other poses"
    )


def _median(errors: Sequence[float]) -> float:
    known = [error for error in errors if not math.isnan(error)]
    return statistics.median(known) if known else math.nan
