"""What a photo's EXIF says of when, where and with which lens it was taken. Nonsense in a field reads as nothing."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

from PIL import ExifTags, Image

from crowdnerf_lab.cameras import focal_from_35mm

ROTATED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_FOCALS_35MM = (4.0, 3000.0)
"""Lenses that exist, mm on film."""
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}
"""FocalPlaneResolutionUnit: inch, centimetre, and as some write millimetre and micrometre."""
_ZONE_STEP = timedelta(minutes=15)
_WIDEST_ZONE = timedelta(hours=14)
_TIMES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.SubsecTime, ExifTags.Base.OffsetTime),
)
_HIGHEST_M = 1e5
"""Altitudes beyond are no phone's."""


@dataclass(frozen=True)
class PhotoMetadata:
    """What a photo's EXIF says; None where it says nothing. width and height are those of the upright picture.

    device: make and model. time carries its zone when the phone wrote one, or when its GPS knew the universal time.
    position_wgs84: latitude, longitude (degrees), altitude (m above sea level, 0 unless `altitude_known`). accuracy_m:
    of the position, horizontal. direction: radians clockwise from the north that direction_reference names.
    focal_35mm: mm on film whose longer side is 36 mm; sensor_focal_px: from the lens and the sensor's resolution.
    orientation: how the picture is stored, EXIF's 1 (upright) to 8.
    """

    width: int
    height: int
    device: str | None
    time: datetime | None
    position_wgs84: tuple[float, float, float] | None
    direction: float | None
    focal_35mm: float | None
    iso: int | None
    exposure_s: float | None
    altitude_known: bool = False
    accuracy_m: float | None = None
    direction_reference: Literal["true", "magnetic"] = "true"
    sensor_focal_px: float | None = None
    software: str | None = None
    orientation: int = 1

    @property
    def focal_px(self) -> float | None:
        """Focal length in pixels of the upright picture."""
        if self.focal_35mm is None:
            return self.sensor_focal_px
        return focal_from_35mm(self.focal_35mm, self.width, self.height)


def metadata_of(exif: Image.Exif, *, width: int, height: int) -> PhotoMetadata:
    """The metadata of a picture that is stored with this width and height, before it is turned upright."""
    shot, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    written = exif.get(ExifTags.Base.Orientation)
    orientation = written if isinstance(written, int) and 1 <= written <= 8 else 1
    if orientation in ROTATED:
        width, height = height, width
    direction = _number(gps.get(ExifTags.GPS.GPSImgDirection))
    iso = _positive(_first(shot.get(ExifTags.Base.ISOSpeedRatings)))
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude))
    altitude = altitude if altitude is not None and abs(altitude) < _HIGHEST_M else None
    focal_35mm = _positive(shot.get(ExifTags.Base.FocalLengthIn35mmFilm))
    return PhotoMetadata(
        width=width,
        height=height,
        device=_device(exif),
        time=_time(exif, shot, gps),
        position_wgs84=_position(gps, altitude),
        direction=None if direction is None else math.radians(direction % 360) % math.tau,
        focal_35mm=focal_35mm if focal_35mm and _FOCALS_35MM[0] <= focal_35mm <= _FOCALS_35MM[1] else None,
        iso=None if iso is None else int(iso),
        exposure_s=_positive(shot.get(ExifTags.Base.ExposureTime)),
        altitude_known=altitude is not None,
        accuracy_m=_positive(gps.get(ExifTags.GPS.GPSHPositioningError)),
        direction_reference="magnetic" if _text(gps.get(ExifTags.GPS.GPSImgDirectionRef)) == "M" else "true",
        sensor_focal_px=_sensor_focal_px(shot, longer_side=max(width, height)),
        software=_text(exif.get(ExifTags.Base.Software)),
        orientation=orientation,
    )


def _device(exif: Image.Exif) -> str | None:
    make, model = _text(exif.get(ExifTags.Base.Make)), _text(exif.get(ExifTags.Base.Model))
    if make and model and not model.lower().startswith(make.lower()):
        return f"{make} {model}"
    return model or make


def _time(exif: Image.Exif, shot: dict[int, Any], gps: dict[int, Any]) -> datetime | None:
    """When the photo was taken, else digitised, else last changed; with its fraction of a second and its zone."""
    for time_field, fraction_field, zone_field in _TIMES:
        written = _text(shot.get(time_field) or exif.get(time_field))
        fraction = "".join(filter(str.isdigit, _text(shot.get(fraction_field)) or ""))[:6] or "0"
        try:
            local = datetime.strptime(f"{written}.{fraction}", "%Y:%m:%d %H:%M:%S.%f")
        except ValueError:
            continue
        zone = _zone(_text(shot.get(zone_field))) or _zone_by_gps(local, gps)
        return local.replace(tzinfo=zone)
    return None


def _zone(text: str | None) -> timezone | None:
    try:
        offset = datetime.strptime(text or "", "%z").utcoffset()
        return None if offset is None else timezone(offset)
    except ValueError:
        return None


def _zone_by_gps(local: datetime, gps: dict[int, Any]) -> timezone | None:
    """The zone in which a local time was written, from the universal time of the phone's last fix."""
    date, parts = _text(gps.get(ExifTags.GPS.GPSDateStamp)), _numbers(gps.get(ExifTags.GPS.GPSTimeStamp))
    if parts is None:
        return None
    try:
        day = datetime.strptime(date or "", "%Y:%m:%d")
        ahead = local - day - timedelta(hours=parts[0], minutes=parts[1], seconds=parts[2])
    except (ValueError, OverflowError):
        return None
    offset = round(ahead / _ZONE_STEP) * _ZONE_STEP
    return timezone(offset) if abs(offset) <= _WIDEST_ZONE else None


def _position(gps: dict[int, Any], altitude: float | None) -> tuple[float, float, float] | None:
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, negative="S", limit=90.0)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, negative="W", limit=180.0)
    if latitude is None or longitude is None or latitude == longitude == 0:
        return None
    height = altitude or 0.0
    below_sea = gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01")
    return latitude, longitude, -height if below_sea else height


def _degrees(gps: dict[int, Any], field: int, reference: int, *, negative: str, limit: float) -> float | None:
    """Degrees, minutes and seconds with a hemisphere as signed degrees."""
    parts = _numbers(gps.get(field))
    if parts is None or min(parts) < 0:
        return None
    degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
    if degrees > limit:
        return None
    return -degrees if (_text(gps.get(reference)) or "").upper() == negative else degrees


def _sensor_focal_px(shot: dict[int, Any], *, longer_side: int) -> float | None:
    """Focal length in pixels from the lens in mm and the pixels a unit of the sensor, scaled if the picture was."""
    focal_mm = _positive(shot.get(ExifTags.Base.FocalLength))
    density = _positive(shot.get(ExifTags.Base.FocalPlaneXResolution))
    unit_mm = _UNIT_MM.get(shot.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    sides = (shot.get(ExifTags.Base.ExifImageWidth), shot.get(ExifTags.Base.ExifImageHeight))
    pixels = [side for side in map(_positive, sides) if side]
    if focal_mm is None or density is None or unit_mm is None:
        return None
    focal_px = focal_mm * density / unit_mm * (longer_side / max(pixels) if pixels else 1.0)
    longest = _FOCALS_35MM[1] / 36 * longer_side
    return focal_px if _FOCALS_35MM[0] / 36 * longer_side <= focal_px <= longest else None


def utc(time: datetime, *, zone: timezone = UTC) -> datetime:
    """A time with its zone, `zone` where it carries none."""
    return time if time.tzinfo else time.replace(tzinfo=zone)


def _numbers(value: Any) -> tuple[float, float, float] | None:
    """Three finite numbers, as EXIF writes angles and times of day."""
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    first, second, third = (_number(part) for part in value)
    return None if first is None or second is None or third is None else (first, second, third)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _number(value: Any) -> float | None:
    """A finite number out of an EXIF field, or None (a rational 0/0, text, nothing)."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _text(value: Any) -> str | None:
    """Printable text of a field; some phones write bytes, and all may write padding."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "ignore")
    if not isinstance(value, str):
        return None
    return "".join(filter(str.isprintable, value.split("\x00")[0])).strip()[:256] or None
