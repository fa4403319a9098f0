"""A folder of photos and videos as they come off phones: one subfolder a UE, or loose files told apart by the phone.

Times, places, headings and lenses are what EXIF and the videos' containers say. Places become metres east, north and up
of a median origin (WGS84, altitudes taken as they are: EXIF's are above the sea, which shifts all alike).
"""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timezone
from pathlib import Path, PurePosixPath

import pymap3d
from pydantic import ValidationError

from crowdnerf_lab.captures.bundle import Capture, CaptureSet, Clip, GpsFix, LeftOut, Photo, Source
from crowdnerf_lab.captures.documents import CaptureError
from crowdnerf_lab.captures.exif import PhotoMetadata, utc
from crowdnerf_lab.captures.formats import takeout
from crowdnerf_lab.captures.formats.calibrated import capture_of, pseudonyms
from crowdnerf_lab.captures.formats.pictures import PHOTO_SUFFIXES, is_photo, is_video, is_writable, media_in
from crowdnerf_lab.captures.photos import PhotoError, read_metadata
from crowdnerf_lab.captures.video.videos import ClipMetadata, VideoError, read_clip_metadata
from crowdnerf_lab.files import FileError, inside

LOOKED_FOR = "a photo or video"
KIND = "folder of photos and videos"
CONVENTION = "EXIF and containers: WGS84 to metres east, north, up; headings clockwise from true north"
_SHARED_FOLDERS = re.compile(
    r"(images?|photos?|pictures?|imgs?|input|rgb|dcim|videos?|media|camera|uploads?|[0-9]{3}[a-z_]{3,8})$",
    re.IGNORECASE,
)
"""Folders that programs and cameras make: they name no contributor."""
_COPIES = re.compile(r"^(?P<folder>images?|rgb|input)_[1-9][0-9]?$", re.IGNORECASE)

Wgs84 = tuple[float, float, float]


@dataclass(frozen=True)
class _Found:
    """A photo or a video with what it says of itself. origin: see `_Place`."""

    file: str
    metadata: PhotoMetadata | ClipMetadata
    time: datetime | None
    position_wgs84: Wgs84 | None
    altitude_known: bool


def recognises(path: Path) -> bool:
    """A photo, a video, or a folder with any below it."""
    if path.is_file():
        return is_photo(path) or is_video(path)
    return bool(media_in(path)[0])


def read(path: Path) -> CaptureSet:
    """Photos and clips with what they say of themselves; what cannot be opened is left out and reported.

    Raises CaptureError when nothing can be opened.
    """
    root = path if path.is_dir() else path.parent
    files, others = media_in(path) if path.is_dir() else ([path.name], [])
    files, copies = _without_copies(files)
    sidecars = takeout.sidecars(root, others)
    found, left_out = [], [*copies, *(_other(file) for file in others if file not in sidecars.files)]
    for file in files:
        entry = _opened(root, file)
        if isinstance(entry, LeftOut):
            left_out.append(entry)
        else:
            found.append(_completed(entry, sidecars))
    if not found:
        first = left_out[0].problem if left_out else "add photos"
        raise CaptureError(f"{path}: none of {len(files)} photos and videos can be opened; the first: {first}")
    left_out.extend(_unused_headings(found))
    origin = _origin(found)
    zone = _usual_zone(found)
    start = min((utc(entry.time, zone=zone) for entry in found if entry.time), default=None)
    captures = _captures(found, origin=origin, start=start, zone=zone, single_folder=path.is_file())
    return CaptureSet(
        root=root,
        name=root.resolve().name or "captures",
        licence="unknown",
        origin_wgs84=origin,
        captures=captures,
        coordinates="enu" if origin else "arbitrary",
        source=Source(kind=KIND, convention=CONVENTION, left_out=tuple(left_out)),
        began=start,
    )


def _opened(root: Path, file: str) -> _Found | LeftOut:
    if not _can_be_named(root, file):
        return LeftOut(ascii(file), f"{file!a} holds characters that not every system takes; rename the file")
    try:
        if is_video(root / file):
            clip = read_clip_metadata(root / file)
            found = _Found(file, clip, clip.created, clip.position_wgs84, clip.position_wgs84 is not None)
            _clip(found, None, UTC, clip.position_wgs84)
            return found
        photo = read_metadata(root / file)
        return _Found(file, photo, photo.time, photo.position_wgs84, photo.altitude_known)
    except (PhotoError, VideoError) as error:
        return LeftOut(file, str(error))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return LeftOut(file, f"{root / file} says of itself what cannot be ({wrong}); convert it, or take it out")


def _can_be_named(root: Path, file: str) -> bool:
    """Whether a manifest's entry of this name leads back to the file: one with a backslash, say, does not."""
    try:
        return is_writable(file) and inside(root, file) == root / file
    except FileError:
        return False


def _completed(found: _Found, sidecars: takeout.Sidecars) -> _Found:
    """What the file itself does not say, from what its sidecar does."""
    told = sidecars.told(found.file)
    if told is None:
        return found
    place = found.position_wgs84 or told.position_wgs84
    return replace(
        found,
        time=found.time or told.time,
        position_wgs84=place,
        altitude_known=found.altitude_known if found.position_wgs84 else told.position_wgs84 is not None,
    )


def _origin(found: Sequence[_Found]) -> Wgs84 | None:
    """The median place, so that one phone that is far off moves it little; altitude 0 when none is known."""
    places = [entry.position_wgs84 for entry in found if entry.position_wgs84]
    if not places:
        return None
    about = places[0][1]
    # Longitudes are counted from the first, so that a crowd on both sides of 180 degrees has its median among it.
    longitude = about + statistics.median((place[1] - about + 180) % 360 - 180 for place in places)
    altitudes = [entry.position_wgs84[2] for entry in found if entry.position_wgs84 and entry.altitude_known]
    return (
        statistics.median(place[0] for place in places),
        (longitude + 180) % 360 - 180,
        statistics.median(altitudes) if altitudes else 0.0,
    )


def _captures(
    found: Sequence[_Found], *, origin: Wgs84 | None, start: datetime | None, zone: timezone, single_folder: bool
) -> tuple[Capture, ...]:
    groups: dict[str, list[_Found]] = {}
    for entry in found:
        groups.setdefault("" if single_folder else _folder_of(entry.file), []).append(entry)
    captures = []
    names = pseudonyms(folder for folder in groups if folder)
    for folder, members in groups.items():
        for ue, device, owned in _owners(members, ue=names.get(folder), taken=set(names.values())):
            photos = [
                _photo(entry, start, zone, origin) for entry in owned if isinstance(entry.metadata, PhotoMetadata)
            ]
            clips = [_clip(entry, start, zone, origin) for entry in owned if isinstance(entry.metadata, ClipMetadata)]
            capture = capture_of(ue, photos, device=device)
            captures.append(capture.model_copy(update={"clips": tuple(clips)}))
    return tuple(captures)


def _owners(
    members: Sequence[_Found], *, ue: str | None, taken: set[str]
) -> Iterable[tuple[str, str, Sequence[_Found]]]:
    """Who took the files of one folder: the UE it is named after; else one UE for each make and model of phone."""
    devices = [entry.metadata.device or "unknown" for entry in members]
    if ue is not None:
        return [(ue, Counter(devices).most_common(1)[0][0], members)]
    owners = []
    for device in dict.fromkeys(devices):
        number = len(owners) + 1
        while (name := f"phone-{number:02d}") in taken:
            number += 1
        taken.add(name)
        owners.append((name, device, [m for m, d in zip(members, devices, strict=True) if d == device]))
    return owners


def _folder_of(file: str) -> str:
    """The first folder that names a contributor; empty for files in none."""
    named = [part for part in PurePosixPath(file).parts[:-1] if not _SHARED_FOLDERS.match(part)]
    return named[0] if named else ""


def _without_copies(files: Sequence[str]) -> tuple[list[str], list[LeftOut]]:
    """Drop images_2/ and the like where images/ is there: shrunk copies would count as further photos."""
    kept, copies = [], []
    folders = {PurePosixPath(file).parts[0].lower() for file in files}
    for file in files:
        match = _COPIES.match(PurePosixPath(file).parts[0])
        if match and match["folder"].lower() in folders:
            copies.append(LeftOut(file, f"{file} is a shrunk copy of one in {match['folder']}/; that one is used"))
        else:
            kept.append(file)
    return kept, copies


def _photo(entry: _Found, start: datetime | None, zone: timezone, origin: Wgs84 | None) -> Photo:
    metadata = entry.metadata
    return Photo(
        file=entry.file,
        width=metadata.width,
        height=metadata.height,
        focal_px=metadata.focal_px,
        time_s=_seconds(entry.time, start, zone),
        gps=_fix(entry, origin),
    )


def _clip(entry: _Found, start: datetime | None, zone: timezone, origin: Wgs84 | None) -> Clip:
    metadata = entry.metadata
    return Clip(
        file=entry.file,
        time_s=_seconds(entry.time, start, zone),
        gps=_fix(entry, origin),
        width=metadata.width,
        height=metadata.height,
        focal_px=metadata.focal_px,
        duration_s=metadata.duration_s if isinstance(metadata, ClipMetadata) else None,
        audio=metadata.audio if isinstance(metadata, ClipMetadata) else None,
    )


def _fix(entry: _Found, origin: Wgs84 | None) -> GpsFix | None:
    """Where the phone was, from the origin; an unknown altitude is the origin's."""
    if entry.position_wgs84 is None or origin is None:
        return None
    latitude, longitude, altitude = entry.position_wgs84
    east, north, up = pymap3d.geodetic2enu(
        latitude, longitude, altitude if entry.altitude_known else origin[2], *origin
    )
    metadata = entry.metadata
    heading = None
    if isinstance(metadata, PhotoMetadata) and metadata.direction_reference == "true":
        heading = metadata.direction
    return GpsFix(position=(float(east), float(north), float(up)), accuracy_m=metadata.accuracy_m, heading=heading)


def _usual_zone(found: Sequence[_Found]) -> timezone:
    """The zone of those photos that tell it, for those that do not; universal time when none does."""
    offsets = Counter(
        entry.time.utcoffset()
        for entry in found
        if entry.time and entry.time.tzinfo and isinstance(entry.metadata, PhotoMetadata)
    )
    usual = offsets.most_common(1)[0][0] if offsets else None
    return timezone(usual) if usual is not None else UTC


def _seconds(time: datetime | None, start: datetime | None, zone: timezone) -> float:
    return 0.0 if time is None or start is None else (utc(time, zone=zone) - start).total_seconds()


def _unused_headings(found: Sequence[_Found]) -> Iterable[LeftOut]:
    magnetic = [
        entry.file
        for entry in found
        if isinstance(entry.metadata, PhotoMetadata)
        and entry.metadata.direction is not None
        and entry.metadata.direction_reference == "magnetic"
    ]
    if magnetic:
        yield LeftOut(
            magnetic[0],
            f"{magnetic[0]} and {len(magnetic) - 1} more give their heading from magnetic north, whose distance from "
            "true north is not known here; the photos are used, their headings are not",
        )


def _other(file: str) -> LeftOut:
    return LeftOut(
        file if is_writable(file) else ascii(file),
        f"{file!r} is no photo ({', '.join(sorted(PHOTO_SUFFIXES))}), no video and no file of poses that can be read; "
        "convert it, or take it out",
    )
