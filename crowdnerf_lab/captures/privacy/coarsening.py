"""Places and times made coarse: what may leave the lab says which venue and which day, not which seat or which home."""

import math
from datetime import datetime

from crowdnerf_lab.captures.bundle import GpsFix, Photo, Pose

METRES_PER_DEGREE = 111_195.0
"""Of latitude, on a sphere of 6371 km."""
_SERIES = (1.0, 2.0, 5.0)
UPRIGHT = 0.1
"""A camera whose axis has less than this of a horizontal part looks up or down: it has no heading."""


def coarse_origin(origin_wgs84: tuple[float, float, float], *, grid_m: float) -> tuple[float, float, float]:
    """Latitude, longitude (degrees) and altitude (m) on a fixed grid whose cells are `grid_m` metres or more a side.

    The grid is the same for everybody (multiples of 1, 2 or 5 times a power of ten, written with few digits), so an
    origin says no more than its cell. Moves it by at most 1.25 `grid_m` along each axis.
    """
    latitude, longitude, altitude = origin_wgs84
    rows = grid_step(grid_m / METRES_PER_DEGREE)
    latitude = max(-90.0, min(90.0, _to_grid(latitude, rows)))
    parallel = METRES_PER_DEGREE * max(math.cos(math.radians(latitude)), 1e-6)
    columns = grid_step(min(grid_m / parallel, 180.0))
    longitude = max(-180.0, min(180.0, _to_grid(longitude, columns)))
    return latitude, longitude, _to_grid(altitude, grid_step(grid_m))


def grid_step(smallest: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... times a power of ten that is not below `smallest` (> 0)."""
    if not (smallest > 0 and math.isfinite(smallest)):
        raise ValueError(f"a grid of {smallest} has no cells; give a positive length in metres")
    power = 10.0 ** math.floor(math.log10(smallest))
    return next(factor * power for factor in (*_SERIES, 10.0, 20.0) if factor * power >= smallest)


def coarse_fix(photo: Photo, *, grid_m: float) -> GpsFix | None:
    """Where a phone said it was, within `grid_m` metres: from its GPS or its whole reported pose; None without either.

    The heading stays: it tells no place.
    """
    if photo.gps is not None:
        position, heading, accuracy = photo.gps.position, photo.gps.heading, photo.gps.accuracy_m or 0.0
    elif photo.reported is not None:
        pose = photo.reported.camera_to_world
        position, heading, accuracy = (pose[0][3], pose[1][3], pose[2][3]), _heading(pose), 0.0
    else:
        return None
    east, north, up = (_to_grid(metres, grid_m) for metres in position)
    return GpsFix(position=(east, north, up), accuracy_m=max(grid_m, accuracy), heading=heading)


def coarse_time(time_s: float, *, step_s: float) -> float:
    """Seconds since the event began, in whole steps."""
    return _to_grid(time_s, step_s)


def coarse_day(began: datetime | None) -> datetime | None:
    """The day on which an event began."""
    return began and began.replace(hour=0, minute=0, second=0, microsecond=0)


def coarse_device(device: str) -> str:
    """The maker of a phone if it is a well-known one, else 'phone': names of devices may hold those of people."""
    words = device.replace("’", "'").lower().split()
    return next((maker for word, maker in _MAKERS.items() if word in words), "phone")


_MAKERS = {
    word: maker
    for maker, words in {
        "Apple": ("apple", "iphone", "ipad"),
        "Google": ("google", "pixel"),
        "Huawei": ("huawei", "honor"),
        "Motorola": ("motorola", "moto"),
        "Nokia": ("nokia",),
        "OnePlus": ("oneplus",),
        "Samsung": ("samsung", "galaxy"),
        "Sony": ("sony", "xperia"),
        "Xiaomi": ("xiaomi", "redmi", "poco"),
    }.items()
    for word in words
}


def _to_grid(value: float, step: float) -> float:
    """The nearest multiple, without the digits that binary fractions leave behind."""
    if not (step > 0 and math.isfinite(step)):
        raise ValueError(f"a step of {step} is none; give a positive number of metres or seconds")
    digits = max(0, 3 - math.floor(math.log10(step)))
    return round(round(value / step) * step, digits) + 0.0


def _heading(pose: Pose) -> float | None:
    """Radians clockwise from north of the optical axis."""
    east, north = pose[0][2], pose[1][2]
    return math.atan2(east, north) % (2 * math.pi) if math.hypot(east, north) > UPRIGHT else None
