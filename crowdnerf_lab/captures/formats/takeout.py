"""What Google Takeout writes beside photos: NAME.supplemental-metadata.json with the time and place it knows.

The name may be cut anywhere after the photo's own (46 characters), and older exports call it NAME.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from crowdnerf_lab.captures.documents import CaptureError, read_document

_ENDING = ".supplemental-metadata"


@dataclass(frozen=True)
class Told:
    """What a sidecar says; None where it says nothing. position_wgs84: latitude, longitude (degrees), altitude (m)."""

    time: datetime | None
    position_wgs84: tuple[float, float, float] | None


@dataclass(frozen=True)
class Sidecars:
    """The sidecars of a folder. files: their names; by photo: what each says."""

    files: frozenset[str]
    _told: dict[str, Told]

    def told(self, photo: str) -> Told | None:
        """What a photo's sidecar says."""
        return self._told.get(photo.lower())


def sidecars(root: Path, files: Sequence[str]) -> Sidecars:
    """Those of `files` that are sidecars, read."""
    taken, told = set(), {}
    for file in files:
        path = PurePosixPath(file)
        if path.suffix.lower() != ".json":
            continue
        try:
            _, document = read_document(root / file)
        except CaptureError:
            continue
        if "photoTakenTime" not in document and "geoData" not in document:
            continue
        taken.add(file)
        told[str(path.parent / _photo_named(path.stem)).lower()] = Told(_time(document), _position(document))
    return Sidecars(frozenset(taken), told)


def _photo_named(stem: str) -> str:
    """IMG_1.jpg of IMG_1.jpg.supplemental-meta."""
    for length in range(len(_ENDING), 1, -1):
        if stem.endswith(_ENDING[:length]):
            return stem[:-length]
    return stem


def _time(document: dict[str, Any]) -> datetime | None:
    taken = document.get("photoTakenTime")
    try:
        return datetime.fromtimestamp(int(taken["timestamp"]), UTC) if isinstance(taken, dict) else None
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _position(document: dict[str, Any]) -> tuple[float, float, float] | None:
    """The place; all zeros stand for none."""
    place: Any = document.get("geoData")
    try:
        latitude, longitude = float(place["latitude"]), float(place["longitude"])
        altitude = float(place.get("altitude", 0.0))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    known = abs(latitude) <= 90 and abs(longitude) <= 180 and abs(altitude) < 1e5
    return (latitude, longitude, altitude) if known and (latitude, longitude) != (0.0, 0.0) else None
