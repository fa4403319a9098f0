"""Where and when each photo was taken, against the crowd: distance from its middle, time from the event's, direction.

A photo whose phone knew no place, time or direction has no value, and is not judged by it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from crowdnerf_lab.cameras import look_at, pinhole
from crowdnerf_lab.captures.bundle import Coordinates, Photo
from crowdnerf_lab.scene import focus_point

FOCUS_ROUNDS = 10
"""Rounds after which the search for the crowd's focus stops; it settles in three or four."""
FACES_FOCUS = math.radians(45)
"""The crowd has a focus if half of it looks within this angle of it."""


def position_of(photo: Photo, coordinates: Coordinates) -> tuple[float, float, float] | None:
    """Where a photo says it was taken: east, north, up in metres; None where it says nothing that others share."""
    if photo.gps is not None:
        return photo.gps.position
    if photo.reported is None or coordinates != "enu":
        return None
    east, north, up = (row[3] for row in photo.reported.camera_to_world)
    return east, north, up


def distances_from_crowd(
    places: Mapping[str, tuple[float, float, float]], owners: Mapping[str, str]
) -> dict[str, float]:
    """Metres across the ground from the middle of the crowd: the median of the UEs' medians, east and north.

    places: by photo; owners: the UE of each photo. However many photos a UE sends, it counts once.
    """
    if not places:
        return {}
    east, north = (middle_of({file: place[axis] for file, place in places.items()}, owners) for axis in (0, 1))
    return {file: math.hypot(place[0] - east, place[1] - north) for file, place in places.items()}


def seconds_from_event(times: Mapping[str, float], owners: Mapping[str, str]) -> dict[str, float]:
    """Seconds from the middle of the event: the median of the UEs' medians.

    A time of exactly 0 is what a photo without a time has: where others have one, it says nothing.
    """
    known = {file: time for file, time in times.items() if time != 0} or dict(times)
    if not known:
        return {}
    middle = middle_of(known, owners)
    return {file: abs(time - middle) for file, time in known.items()}


def angles_from_focus(photos: Sequence[Photo], *, faces_focus: float = FACES_FOCUS) -> dict[str, float]:
    """Angle to the crowd's focus by photo, radians; only photos whose phone knew where it looked.

    A phone that knows its heading only is taken to be held level. Empty where the crowd has no focus.
    """
    poses = {photo.file: pose for photo in photos if (pose := _pose_of(photo)) is not None}
    if len(poses) < 3:
        return {}
    angles = angles_to_focus(torch.stack(list(poses.values())), faces_focus=faces_focus)
    return {} if angles is None else dict(zip(poses, angles.tolist(), strict=True))


def angles_to_focus(
    camera_to_world: Float[Tensor, "n 3 4"], *, faces_focus: float = FACES_FOCUS
) -> Float[Tensor, "n"] | None:
    """Angle between each viewing direction and where the crowd looks, radians in [0, pi].

    The focus is the point nearest to the optical axes of the cameras that face it, found by leaving out, again and
    again, those that look further than `faces_focus` past it. None when fewer than half of the cameras agree on one.
    """
    cameras = pinhole(camera_to_world, torch.ones(len(camera_to_world)), width=1, height=1)
    facing = torch.ones(len(cameras), dtype=torch.bool)
    angles = torch.zeros(len(cameras))
    for _ in range(FOCUS_ROUNDS):
        towards = torch.nn.functional.normalize(focus_point(cameras[facing]) - cameras.positions, dim=-1)
        angles = torch.arccos((towards * cameras.forward).sum(-1).clamp(-1, 1))
        before, facing = facing, angles < faces_focus
        if int(facing.sum()) < max(2, len(cameras) / 2):
            return None
        if torch.equal(before, facing):
            break
    return angles


def middle_of(values: Mapping[str, float], owners: Mapping[str, str]) -> float:
    """The median of the UEs' medians: however many photos a UE sends, it counts once. owners: the UE of each photo."""
    by_owner: dict[str, list[float]] = {}
    for file, value in values.items():
        by_owner.setdefault(owners[file], []).append(value)
    return statistics.median(statistics.median(own) for own in by_owner.values())


def _pose_of(photo: Photo) -> Float[Tensor, "3 4"] | None:
    if photo.reported is not None:
        return torch.tensor(photo.reported.camera_to_world)
    if photo.gps is None or photo.gps.heading is None:
        return None
    eye, heading = torch.tensor(photo.gps.position), photo.gps.heading
    return look_at(eye, eye + torch.tensor([math.sin(heading), math.cos(heading), 0.0]))
