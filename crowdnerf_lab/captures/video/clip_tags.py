"""What phones write beside a video: when and where it was taken, with which device and lens.

Apple's keys (com.apple.quicktime.*), Android's (com.android.*, the location atom) and Matroska's upper-case copies of
either are understood. All of it may be absent or nonsense; nonsense counts as absent.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

Wgs84 = tuple[float, float, float]

_LOCATION = ("com.apple.quicktime.location.iso6709", "location", "location-eng")
_ACCURACY = ("com.apple.quicktime.location.accuracy.horizontal",)
_MODEL = ("com.apple.quicktime.model", "com.android.model", "model", "model-eng")
_MAKE = ("com.apple.quicktime.make", "com.android.manufacturer", "make", "make-eng")
_FOCAL_35MM = ("com.apple.quicktime.camera.focal_length.35mm_equivalent",)
_STARTED = ("com.apple.quicktime.creationdate",)
_CREATED = ("creation_time", "date")
_ISO6709 = re.compile(r"^([+-])(\d+)(\.\d+)?([+-])(\d+)(\.\d+)?(?:([+-]\d+(?:\.\d+)?))?(?:CRS[^/]*)?/?$")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Phones with a clock that was never set say 1904 or 1970."""

Tags = Mapping[str, str]


def merged(*sources: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Tags of a file and of its streams with keys in lower case; what comes first wins."""
    tags: dict[str, str] = {}
    for source in sources:
        for key, value in source:
            tags.setdefault(key.lower(), value.strip("\x00 "))
    return tags


def started(tags: Tags, duration_s: float) -> datetime | None:
    """When the recording began, with its time zone.

    Apple writes the moment of the start, with its zone. The container's own creation_time, in UTC, is that of its
    index: Android's writer makes that last, so that it names the end of the recording.
    """
    moment = _moment(_first(tags, _STARTED))
    if moment is not None:
        return moment
    moment = _moment(_first(tags, _CREATED))
    if moment is not None and "com.android.version" in tags:
        return moment - timedelta(seconds=duration_s)
    return moment


def position(tags: Tags) -> Wgs84 | None:
    """Latitude, longitude (degrees) and altitude (m, 0 when absent) from an ISO 6709 text such as +59.3+018.1+12/."""
    found = _ISO6709.match(_first(tags, _LOCATION) or "")
    if found is None:
        return None
    latitude = _degrees(*found.group(1, 2, 3), width=2)
    longitude = _degrees(*found.group(4, 5, 6), width=3)
    altitude = float(found.group(7) or 0)
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return latitude, longitude, altitude


def accuracy(tags: Tags) -> float | None:
    """The phone's estimate of the horizontal error of its position, metres."""
    return _positive(_first(tags, _ACCURACY))


def focal_35mm(tags: Tags) -> float | None:
    """Focal length in mm on film whose longer side is 36 mm."""
    return _positive(_first(tags, _FOCAL_35MM))


def device(tags: Tags) -> str | None:
    """The model, or at least the maker."""
    return _first(tags, _MODEL) or _first(tags, _MAKE)


def _first(tags: Tags, keys: Iterable[str]) -> str | None:
    return next((tags[key] for key in keys if tags.get(key)), None)


def _moment(text: str | None) -> datetime | None:
    """An ISO 8601 time; UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment if moment >= _EARLIEST else None


def _degrees(sign: str, whole: str, fraction: str | None, *, width: int) -> float | None:
    """DD, DDMM or DDMMSS (DDD... for longitudes), the last part with decimals, as signed degrees."""
    minutes, seconds = whole[width : width + 2], whole[width + 2 :]
    if len(whole) not in (width, width + 2, width + 4):
        return None
    parts = [part for part in (whole[:width], minutes, seconds) if part]
    parts[-1] += fraction or ""
    degrees = sum(float(part) / 60**power for power, part in enumerate(parts))
    return -degrees if sign == "-" else degrees


def _positive(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None
