"""Captures that arrive one after the other become one event: one origin, one beginning of time, one list of UEs."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pymap3d
from jaxtyping import Float
from numpy import ndarray

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Clip, Consent, Photo, Pose, Wgs84
from crowdnerf_lab.captures.documents import CaptureError

Frame = tuple[Float[ndarray, "3 3"], Float[ndarray, "3"]]
"""A rotation and a shift from one east-north-up frame to another."""


def expressed_like(before: CaptureSet, uploaded: CaptureSet) -> CaptureSet:
    """An upload's positions and times in the frame of the event that it joins.

    Raises CaptureError when both have positions and nothing tells how they lie to each other.
    """
    if not before.captures:
        return uploaded
    seconds = (uploaded.began - before.began).total_seconds() if uploaded.began and before.began else 0.0
    frame = _frame_between(before, uploaded)
    return replace(
        uploaded,
        origin_wgs84=before.origin_wgs84 if _placed(before) else uploaded.origin_wgs84,
        coordinates=before.coordinates if _placed(before) else uploaded.coordinates,
        began=before.began or uploaded.began,
        captures=tuple(
            capture.model_copy(
                update={
                    "photos": tuple(_moved_photo(photo, frame, seconds) for photo in capture.photos),
                    "clips": tuple(_moved_clip(clip, frame, seconds) for clip in capture.clips),
                }
            )
            for capture in uploaded.captures
        ),
    )


def joined(before: CaptureSet, uploaded: CaptureSet, taken: Iterable[tuple[str, Photo]]) -> CaptureSet:
    """The event with the photos that were taken in from an upload expressed like it; each comes with its UE.

    UEs and photos are in an order of their own, whichever came first. Where a UE's consents differ it gives the lesser.
    """
    captures = {capture.ue: capture for capture in before.captures}
    for capture in uploaded.captures:
        captures[capture.ue] = _joined_head(captures.get(capture.ue), capture)
    photos = {ue: {photo.file: photo for photo in capture.photos} for ue, capture in captures.items()}
    for ue, photo in taken:
        photos[ue][photo.file] = photo
    complete = (
        capture.model_copy(
            update={"photos": tuple(sorted(photos[ue].values(), key=lambda photo: (photo.time_s, photo.file)))}
        )
        for ue, capture in sorted(captures.items())
    )
    return replace(
        before,
        origin_wgs84=uploaded.origin_wgs84,
        coordinates=uploaded.coordinates,
        began=uploaded.began,
        captures=tuple(capture for capture in complete if capture.photos or capture.clips),
    )


def _joined_head(there: Capture | None, capture: Capture) -> Capture:
    """A UE without the upload's photos, which come later."""
    if there is None:
        return capture.model_copy(update={"photos": (), "clips": ()})
    consent = Consent(
        train=there.consent.train and capture.consent.train, publish=there.consent.publish and capture.consent.publish
    )
    return there.model_copy(update={"consent": consent})


def _placed(captures: CaptureSet) -> bool:
    """Whether anything in the captures has a position."""
    photos = any(photo.gps or photo.reported or photo.camera for photo in captures.photos)
    return photos or any(clip.gps or clip.reported for capture in captures.captures for clip in capture.clips)


def _frame_between(before: CaptureSet, uploaded: CaptureSet) -> Frame | None:
    """From the upload's frame to the event's; None when they are the same or one of them places nothing."""
    same = (before.coordinates, before.origin_wgs84) == (uploaded.coordinates, uploaded.origin_wgs84)
    if not _placed(before) or not _placed(uploaded) or (same and before.coordinates == "enu"):
        return None
    if before.origin_wgs84 and uploaded.origin_wgs84 and before.coordinates == uploaded.coordinates == "enu":
        return _between_origins(uploaded.origin_wgs84, before.origin_wgs84)
    if same and before.name == uploaded.name:
        return None
    raise CaptureError(
        f"{uploaded.root} has positions that are {uploaded.coordinates} from {uploaded.origin_wgs84}, and "
        f"{before.root} has some that are {before.coordinates} from {before.origin_wgs84}; "
        "take it into a folder of its own"
    )


def _between_origins(start: Wgs84, end: Wgs84) -> Frame:
    """East-north-up frames differ by a rigid motion: where the origin goes, and where the three axes point."""
    east, north, up = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64).T
    x, y, z = pymap3d.enu2ecef(east, north, up, *start)
    moved = np.stack(pymap3d.ecef2enu(x, y, z, *end))
    return moved[:, 1:] - moved[:, :1], moved[:, 0]


def _moved_photo(photo: Photo, frame: Frame | None, seconds: float) -> Photo:
    update: dict[str, object] = {"time_s": photo.time_s + seconds}
    if frame is not None:
        update |= _moved_places(photo, frame)
        if photo.camera is not None:
            pose = _moved_pose(photo.camera.camera_to_world, frame)
            update["camera"] = photo.camera.model_copy(update={"camera_to_world": pose})
    return photo.model_copy(update=update)


def _moved_clip(clip: Clip, frame: Frame | None, seconds: float) -> Clip:
    update: dict[str, object] = {"time_s": clip.time_s + seconds}
    return clip.model_copy(update=update | (_moved_places(clip, frame) if frame is not None else {}))


def _moved_places(record: Photo | Clip, frame: Frame) -> dict[str, object]:
    update: dict[str, object] = {}
    if record.gps is not None:
        rotation, shift = frame
        position = tuple((rotation @ np.array(record.gps.position) + shift).tolist())
        update["gps"] = record.gps.model_copy(update={"position": position})
    if record.reported is not None:
        pose = _moved_pose(record.reported.camera_to_world, frame)
        update["reported"] = record.reported.model_copy(update={"camera_to_world": pose})
    return update


def _moved_pose(pose: Pose, frame: Frame) -> Pose:
    rotation, shift = frame
    moved = rotation @ np.array(pose)
    moved[:, 3] += shift
    first, second, third = (tuple(row) for row in moved.tolist())
    return first, second, third
