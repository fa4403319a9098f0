"""One photo from disk: pixels upright in sRGB bytes, and what its EXIF says. Nothing about the file is trusted."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from crowdnerf_lab.cameras import focal_from_35mm

PHOTO_BYTES = 100 << 20
"""Largest file that is opened."""
PHOTO_PIXELS = 50_000_000
"""Largest picture that is decoded: what the largest phone sensors give in their full mode."""
_FORMATS = ("JPEG", "PNG", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_ROTATED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


class PhotoError(ValueError):
    """A picture that cannot be read; the message names the file and the remedy."""


@dataclass(frozen=True)
class PhotoMetadata:
    """What a photo's EXIF says; None where it says nothing. width and height are those of the upright picture.

    time carries its zone when the phone wrote one. position_wgs84: latitude, longitude (degrees), altitude (m above sea
    level, 0 when absent). direction: radians clockwise from north. focal_35mm: mm on film whose longer side is 36 mm.
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

    @property
    def focal_px(self) -> float | None:
        """Focal length in pixels of the upright picture."""
        return self.focal_35mm and focal_from_35mm(self.focal_35mm, self.width, self.height)


def read_photo(path: Path | str) -> UInt8[Tensor, "h w 3"]:
    """A JPEG, PNG or WebP picture as sRGB bytes, turned upright by its EXIF orientation; transparency becomes white.

    Raises PhotoError for a file that is missing, empty, larger than PHOTO_BYTES or PHOTO_PIXELS (before decoding),
    truncated, or no 8-bit picture of these formats.
    """
    with _opened(Path(path)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            colours = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
        pixels = np.array(upright.convert("RGB"))
    return torch.from_numpy(pixels)


def read_metadata(path: Path | str) -> PhotoMetadata:
    """A photo's size and EXIF, without decoding it. Raises PhotoError as `read_photo` does for files it cannot open."""
    with _opened(Path(path)) as image:
        exif = image.getexif()
        shot = exif.get_ifd(ExifTags.IFD.Exif)
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        width, height = image.size
    if exif.get(ExifTags.Base.Orientation) in _ROTATED:
        width, height = height, width
    direction = _number(gps.get(ExifTags.GPS.GPSImgDirection))
    iso = _number(shot.get(ExifTags.Base.ISOSpeedRatings))
    return PhotoMetadata(
        width=width,
        height=height,
        device=_text(exif.get(ExifTags.Base.Model)),
        time=_time(shot),
        position_wgs84=_position(gps),
        direction=None if direction is None else math.radians(direction % 360),
        focal_35mm=_positive(shot.get(ExifTags.Base.FocalLengthIn35mmFilm)),
        iso=None if iso is None else int(iso),
        exposure_s=_positive(shot.get(ExifTags.Base.ExposureTime)),
    )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An open picture; what Pillow raises while it reads becomes a PhotoError naming the file."""
    if not path.is_file():
        raise PhotoError(f"{path} does not exist; put the photo back or drop its entry")
    size = path.stat().st_size
    if size == 0:
        raise PhotoError(f"{path} is empty (0 bytes); copy or upload it again")
    if size > PHOTO_BYTES:
        raise PhotoError(f"{path} has {size} bytes, more than {PHOTO_BYTES}; save it smaller")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _check_size(path, image)
            yield image
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(f"{path} is too large to decode ({error}); shrink it below {PHOTO_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise PhotoError(
            f"{path} is not a JPEG, PNG or WebP picture; save it as one of these (HEIC and raw files: convert to JPEG)"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PhotoError(f"{path} is damaged or cut short ({error}); copy or upload it again") from None


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > PHOTO_PIXELS:
        raise PhotoError(
            f"{path} is {image.width}x{image.height}, more than {PHOTO_PIXELS} pixels; shrink it before uploading"
        )
    if image.mode not in _MODES:
        raise PhotoError(f"{path} has pixels of kind {image.mode!r}; save it with 8 bits a channel")


def _number(value: Any) -> float | None:
    """A finite number out of an EXIF field, or None (a rational 0/0, text, nothing)."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _text(value: Any) -> str | None:
    return value.strip("\x00 ") or None if isinstance(value, str) else None


def _time(shot: dict[int, Any]) -> datetime | None:
    """DateTimeOriginal with its fraction of a second and its zone, where written."""
    fraction = _text(shot.get(ExifTags.Base.SubsecTimeOriginal)) or "0"
    zone = _text(shot.get(ExifTags.Base.OffsetTimeOriginal)) or ""
    text = f"{_text(shot.get(ExifTags.Base.DateTimeOriginal))}.{fraction[:6]}{zone}"
    try:
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S.%f%z" if zone else "%Y:%m:%d %H:%M:%S.%f")
    except ValueError:
        return None


def _position(gps: dict[int, Any]) -> tuple[float, float, float] | None:
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, negative="S", limit=90.0)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, negative="W", limit=180.0)
    if latitude is None or longitude is None:
        return None
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude)) or 0.0
    below_sea = gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01")
    return latitude, longitude, -altitude if below_sea else altitude


def _degrees(gps: dict[int, Any], field: int, reference: int, *, negative: str, limit: float) -> float | None:
    """Degrees, minutes and seconds with a hemisphere as signed degrees."""
    parts = gps.get(field)
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    numbers = [_number(part) for part in parts]
    if any(number is None for number in numbers):
        return None
    degrees = sum(number / 60**power for power, number in enumerate(n for n in numbers if n is not None))
    if degrees > limit:
        return None
    return -degrees if gps.get(reference) == negative else degrees
