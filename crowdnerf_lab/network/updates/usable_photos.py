"""From an event's photos to the scene of a round: screened, posed, and parted into those that teach and those that
judge.

A photo's camera is the one that came with it (phones that track themselves, or a positioning service), else what
structure from motion finds among all of them (extra colmap), else what the phone reports of itself.
"""

import json
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass

from crowdnerf_lab.captures.bundle import CaptureSet, GivenCamera, Photo
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.intake.ingest import PHOTO_LIMITS
from crowdnerf_lab.captures.intake.sandbox import Job, Sandbox
from crowdnerf_lab.captures.poses.adding import add_captures
from crowdnerf_lab.captures.poses.calibration import CalibrationError, calibrate
from crowdnerf_lab.captures.poses.given_poses import scene_of_given
from crowdnerf_lab.captures.poses.taken_photos import believed_pose
from crowdnerf_lab.captures.screening.measures import measure_one
from crowdnerf_lab.captures.screening.screen import Measured, judge
from crowdnerf_lab.files import write_json
from crowdnerf_lab.network.updates.event_folder import EventFolder, Plan
from crowdnerf_lab.network.updates.update_settings import UpdateSettings
from crowdnerf_lab.scene import PosedScene, SceneError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsablePhotos:
    """Photos that passed the screening and have a camera. refused: why others are not among them, by file.

    reported_poses: whether any camera is only what a phone reports, to be moved while training.
    """

    captures: CaptureSet
    refused: dict[str, str]
    reported_poses: bool

    @property
    def files(self) -> tuple[str, ...]:
        """The usable photos, by file."""
        return tuple(photo.file for photo in self.captures.photos)


def usable_photos(
    captures: CaptureSet, folder: EventFolder, *, sandbox: Sandbox, measured: dict[str, Measured]
) -> UsablePhotos:
    """Screen all photos and give each a camera. measured: what is known of them; new measures are added to it."""
    files = [photo.file for capture in captures.captures if capture.consent.train for photo in capture.photos]
    jobs = (
        Job(measure_one, (captures.path_of(file),), about=file, limits=PHOTO_LIMITS)
        for file in files
        if file not in measured
    )
    for outcome in sandbox.results(jobs):
        measured[outcome.job.about] = str(outcome.error) if outcome.error else outcome.value
    screening = judge(captures, {file: measured[file] for file in files})
    refused = {row.photo: f"{row.check}: {row.reason}" for row in reversed(screening.rows) if not row.kept}
    cameras, reported = _cameras_of(captures.keeping(set(screening.kept)), folder)
    for file in screening.kept:
        if file not in cameras:
            refused[file] = "its camera is unknown: nothing tells where it was taken; send a pose with it"
    posed = tuple(
        capture.model_copy(
            update={
                "photos": tuple(
                    photo.model_copy(update={"camera": cameras[photo.file]})
                    for photo in capture.photos
                    if photo.file in cameras
                )
            }
        )
        for capture in captures.captures
    )
    usable = CaptureSet(
        root=captures.root,
        name=captures.name,
        licence=captures.licence,
        origin_wgs84=captures.origin_wgs84,
        captures=tuple(capture for capture in posed if capture.photos),
        coordinates=captures.coordinates,
    )
    return UsablePhotos(usable, {file: _without_paths(text, captures) for file, text in refused.items()}, reported)


def judges_among(
    files: Collection[str], *, met: Collection[str], before: Collection[str], every: int, most: int
) -> list[str]:
    """Photos that judge: those that did before, and of the ones that no field has met as many more as make one in
    `every`, `most` in all. By their names, which are digests: as good as at random."""
    judges = sorted(set(before) & set(files))
    unmet = sorted(set(files) - set(met) - set(judges), key=lambda file: file.rpartition("/")[2])
    lacking = min(math.ceil(len(files) / every), most) - len(judges)
    return judges + unmet[: max(0, lacking)]


def scene_of(plan: Plan, usable: UsablePhotos, settings: UpdateSettings) -> PosedScene:
    """The scene of a round: its photos to train on, its judges held out. Raises SceneError when too few are left."""
    wanted = {*plan.photos, *plan.judges}
    try:
        scene = scene_of_given(usable.captures.keeping(wanted), held_out_every=0)
    except CaptureError as error:
        raise SceneError(str(error)) from error
    rows = {name: row for row, name in enumerate(scene.image_names)}
    split = [[rows[file] for file in files if file in rows] for files in (plan.photos, plan.judges)]
    return scene.with_split(*split).downscaled(settings.photo_downscale)


def _cameras_of(captures: CaptureSet, folder: EventFolder) -> tuple[dict[str, GivenCamera], bool]:
    """Cameras by photo, and whether any is no more than what a phone reports."""
    photos = {photo.file: photo for photo in captures.photos}
    given = {file: photo.camera for file, photo in photos.items() if photo.camera is not None}
    if len(given) == len(photos):
        return given, False
    if not given:
        found = _by_motion(captures, folder)
        if found:
            return found, False
    reported = {file: camera for file, photo in photos.items() if (camera := _reported_camera(photo)) is not None}
    return reported | given, bool(reported.keys() - given.keys())


def _by_motion(captures: CaptureSet, folder: EventFolder) -> dict[str, GivenCamera]:
    """Cameras by structure from motion, in the frame of the photos that were posed first; none where it cannot run.

    Later photos are added to that reconstruction, whose finished stages are found again.
    """
    first_file = folder.motion / "first_photos.json"
    photos = [photo.file for photo in captures.photos]
    try:
        first = json.loads(first_file.read_bytes()) if first_file.is_file() else photos
        first = [file for file in first if file in set(photos)]
        scene, report = calibrate(
            captures.keeping(set(first)), poses="colmap", workspace=folder.motion / "work", progress=False
        )
        write_json(first_file, first)
        if set(photos) - set(first):
            scene, _ = add_captures(scene, captures, report=report, workspace=folder.motion / "work", progress=False)
    except (CalibrationError, ImportError) as error:
        log.warning("%s: no structure from motion (%s); poses are those that phones report", folder.event, error)
        return {}
    known = set(photos)
    return {name: _camera(scene, row) for row, name in enumerate(scene.image_names) if name in known}


def _camera(scene: PosedScene, row: int) -> GivenCamera:
    camera = scene.cameras[row : row + 1]
    found = {"camera_to_world": camera.camera_to_world, "focal_px": camera.focal, "centre_px": camera.centre}
    found["distortion"] = camera.distortion
    return GivenCamera.model_validate({name: tensor[0].tolist() for name, tensor in found.items()})


def _reported_camera(photo: Photo) -> GivenCamera | None:
    """The camera that a phone reports, if it knows place, attitude and lens."""
    pose = believed_pose(photo)
    if pose is None or photo.focal_px is None:
        return None
    centre = photo.centre_px or (photo.width / 2, photo.height / 2)
    return GivenCamera(camera_to_world=pose, focal_px=(photo.focal_px, photo.focal_px), centre_px=centre)


def _without_paths(text: str, captures: CaptureSet) -> str:
    return text.replace(f"{captures.root}/", "")
