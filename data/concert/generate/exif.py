"""What a phone writes into its photo: place, direction, lens, sensitivity and time."""

import numpy as np
import piexif
import pymap3d
from jaxtyping import Float
from viewpoints import Shot

ORIGIN_WGS84 = (48.9245, 2.3602, 35.0)
"""Latitude, longitude (degrees) and altitude (m) of the ENU origin."""


def exif_of(shot: Shot) -> bytes:
    """The EXIF block of a shot: GPS position and direction as reported (not the truth), 35 mm focal length, ISO, time.

    All photos are of the same instant; the fraction of the second is the error of the phone's clock.
    """
    camera_to_world, viewpoint = shot.reported_camera_to_world, shot.viewpoint
    focal_35mm = round(viewpoint.focal_px / max(viewpoint.width, viewpoint.height) * 36)
    main = {
        piexif.ImageIFD.Make: b"CrowdNeRF-sim",
        piexif.ImageIFD.Model: shot.phone.device.encode(),
        piexif.ImageIFD.Orientation: 1,
    }
    details = {
        piexif.ExifIFD.DateTimeOriginal: b"2026:06:20 21:30:00",
        piexif.ExifIFD.SubSecTimeOriginal: f"{int(shot.phone.clock_s * 1000) % 1000:03d}".encode(),
        piexif.ExifIFD.OffsetTimeOriginal: b"+02:00",
        piexif.ExifIFD.FocalLengthIn35mmFilm: focal_35mm,
        piexif.ExifIFD.ISOSpeedRatings: shot.phone.iso,
        piexif.ExifIFD.ExposureTime: (1, 60),
    }
    return piexif.dump({"0th": main, "Exif": details, "GPS": _gps(camera_to_world)})


def _gps(camera_to_world: Float[np.ndarray, "3 4"]) -> dict:
    latitude, longitude, altitude = pymap3d.enu2geodetic(*camera_to_world[:, 3], *ORIGIN_WGS84)
    forward = camera_to_world[:, 2]
    heading = np.degrees(np.arctan2(forward[0], forward[1])) % 360
    return {
        piexif.GPSIFD.GPSLatitudeRef: b"N",
        piexif.GPSIFD.GPSLatitude: _degrees_minutes_seconds(latitude),
        piexif.GPSIFD.GPSLongitudeRef: b"E",
        piexif.GPSIFD.GPSLongitude: _degrees_minutes_seconds(longitude),
        piexif.GPSIFD.GPSAltitudeRef: 0,
        piexif.GPSIFD.GPSAltitude: (int(altitude * 100), 100),
        piexif.GPSIFD.GPSImgDirectionRef: b"T",
        piexif.GPSIFD.GPSImgDirection: (int(heading * 100), 100),
        piexif.GPSIFD.GPSHPositioningError: (300, 100),
    }


def _degrees_minutes_seconds(angle: float) -> tuple[tuple[int, int], ...]:
    """EXIF's three rationals, to 1e-4 seconds of arc (3 mm)."""
    return (int(angle), 1), (int(angle * 60 % 60), 1), (round(angle * 3600 % 60 * 1e4), 10000)
